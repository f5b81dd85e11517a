import { Answer, answer, Options, Receiver } from "./handler.js";
import { HeadersLike } from "./verify.js";

/** Thrown by readers of bodies. */
const tooLarge = Symbol("too large");

/** Concatenates what a stream gives, up to limit bytes. */
async function collect(chunks: AsyncIterable<Uint8Array | string>, limit: number): Promise<Uint8Array | typeof tooLarge> {
  const parts: Uint8Array[] = [];
  let length = 0;
  for await (const chunk of chunks) {
    const part = typeof chunk === "string" ? new TextEncoder().encode(chunk) : chunk;
    length += part.length;
    if (length > limit) return tooLarge;
    parts.push(part);
  }
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

async function* chunksOf(stream: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array> {
  if (!stream) return;
  const reader = stream.getReader();
  try {
    for (let next = await reader.read(); !next.done; next = await reader.read()) yield next.value;
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

const lengthOf = (text: string | null | undefined) => Number(text ?? 0) || 0;

/**
 * A handler of Request and Response: Next.js (`export const POST = createHandler({…})`), Hono, Bun, Deno, and Workers. The second
 * argument is what secret is called with.
 */
export function createHandler<Env = any, R extends string = never>(options: Options<Env, R>): (request: Request, env?: Env) => Promise<Response> {
  const receiver = new Receiver<Env, R>(options);
  return async (request, env) => {
    const status = receiver.refuse(request.method, request.headers, lengthOf(request.headers.get("content-length")));
    if (status) return response(answer(status));
    const body = await collect(chunksOf(request.body), receiver.maxBytes).catch(() => undefined);
    if (body === undefined) return response(answer(400));
    return response(body === tooLarge ? answer(413) : await receiver.handle(request.method, request.headers, body, env));
  };
}

const response = ({ status, headers, body }: Answer) => new Response(body, { status, headers });

/** A module of Cloudflare Workers: `export default createWorker({ secret: (env) => env.WEBHOOK_SECRET, on: {…} })`. */
export function createWorker<Env = any, R extends string = never>(options: Options<Env, R>): { fetch(request: Request, env: Env): Promise<Response> } {
  return { fetch: createHandler(options) };
}

interface NodeRequest extends AsyncIterable<Uint8Array> {
  method?: string | undefined;
  headers: Readonly<Record<string, string | string[] | undefined>>;
  rawHeaders?: string[];
  readableDidRead?: boolean;
  body?: unknown;
  rawBody?: unknown;
}

interface NodeResponse {
  writeHead(status: number, headers: Record<string, string>): unknown;
  end(body: string): unknown;
}

/**
 * A handler for Express and node:http. It reads the body itself, or takes that of express.raw. A body that express.json has
 * parsed cannot be verified: mount the handler before it.
 */
export function createNodeHandler<R extends string = never>(options: Options<undefined, R>): (request: NodeRequest, response: NodeResponse) => Promise<void> {
  const receiver = new Receiver<undefined, R>(options);
  return async (request, response) => {
    const { status, headers, body } = await answerNode(receiver, request).catch(() => answer(500));
    response.writeHead(status, headers);
    response.end(body);
  };
}

async function answerNode(receiver: Receiver<undefined, any>, request: NodeRequest): Promise<Answer> {
  const headers = pairsOf(request.rawHeaders) ?? request.headers;
  const status = receiver.refuse(request.method ?? "", headers, lengthOf(request.headers["content-length"] as string | undefined));
  if (status) return answer(status);
  for (const body of [request.rawBody, request.body]) {
    if (body instanceof Uint8Array || typeof body === "string") return receiver.handle("POST", headers, body);
  }
  if (request.readableDidRead) {
    console.error("eventflow-receiver: the body was parsed before: mount the handler before express.json(), or use express.raw()");
    return answer(500);
  }
  const body = await collect(request, receiver.maxBytes).catch(() => undefined);
  if (body === undefined) return answer(400);
  return body === tooLarge ? answer(413) : receiver.handle("POST", headers, body);
}

/** Node's own headers keep one of some repeated ones, and join others; rawHeaders has all. */
function pairsOf(raw: string[] | undefined): [string, string][] | undefined {
  if (!raw?.length) return undefined;
  return Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i] ?? "", raw[2 * i + 1] ?? ""]);
}

interface LambdaEvent {
  httpMethod?: string;
  requestContext?: { http?: { method?: string } };
  headers?: Record<string, string | undefined> | null;
  multiValueHeaders?: Record<string, string[] | undefined> | null;
  body?: string | null;
  isBase64Encoded?: boolean;
}

/** A handler for AWS Lambda: function URLs, API Gateway (REST and HTTP APIs) and load balancers. */
export function createLambdaHandler<R extends string = never>(options: Options<undefined, R>): (event: LambdaEvent) => Promise<{ statusCode: number; headers: Record<string, string>; body: string }> {
  const receiver = new Receiver<undefined, R>(options);
  return async (event) => {
    const method = event.requestContext?.http?.method ?? event.httpMethod ?? "";
    const headers: HeadersLike = event.multiValueHeaders ?? event.headers ?? {};
    let body: string | Uint8Array = event.body ?? "";
    if (event.isBase64Encoded) body = Uint8Array.from(atob(body), (c) => c.charCodeAt(0));
    const { status, headers: sent, body: text } = await receiver.handle(method, headers, body);
    return { statusCode: status, headers: sent, body: text };
  };
}
