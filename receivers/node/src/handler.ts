import { checkPattern, decode, Event, Matching, Pattern, Reason, Refused, route } from "./event.js";
import { Deduplicator, MemoryDeduplicator } from "./dedupe.js";
import { bytesOf, checkOptions, HeadersLike, headerMap, keyBytes, parseKey, VerifyOptions, verifySignature } from "./verify.js";

/** One secret, or several during a rotation: shared ones (whsec_), and public keys of pairs (whpk_). */
export type Secrets = string | readonly string[] | undefined;

/** Maps patterns to handlers; the most specific wins. A handler that throws has failed, and the delivery is retried. */
export type Handlers<R extends string = never> = { [P in Pattern<R>]?: (event: Event<Matching<P>>) => unknown };

export interface Options<Env = unknown, R extends string = never> extends VerifyOptions {
  /** The signing secrets, or a function that returns them at each delivery, given what the platform passes (Workers' env). */
  secret: Secrets | ((env: Env) => Secrets | Promise<Secrets>);
  on?: Handlers<R>;
  /** A site's own resources, beside the clinical ones. */
  resources?: readonly R[];
  /** The largest body in bytes; 1 MiB and an envelope unless set. */
  maxBytes?: number;
  deduplicator?: Deduplicator;
  /** How long a handler may take before another attempt may begin, in milliseconds; 5 minutes unless set. */
  lease?: number;
  /** Called with what failed; console.error unless set. It is never given a payload or a secret. */
  onError?: (error: unknown, about: { deliveryId?: string; type?: string; status: number }) => void;
}

/** Throw it from a handler: answers 503 with Retry-After, which holds back the whole subscription. */
export class Retry extends Error {
  constructor(readonly seconds: number) {
    super("the handler asks for a retry later");
  }
}

/** Throw it from a handler: answers 410, upon which the dispatcher stops the subscription. Nothing else answers so. */
export class Stop extends Error {}

export interface Answer {
  status: number;
  headers: Record<string, string>;
  body: string;
}

export const defaultMaxBytes = (1 << 20) + 4096;

/** The part that no platform differs in. The adapters are thin. */
export class Receiver<Env = unknown, R extends string = never> {
  readonly maxBytes: number;
  readonly #options: Options<Env, R>;
  readonly #on: Map<string, (event: any) => unknown>;
  readonly #deduplicator: Deduplicator;
  #keys: { texts: readonly string[]; keys: Promise<CryptoKey[]> } | undefined;

  constructor(options: Options<Env, R>) {
    checkOptions(options);
    this.#options = options;
    this.maxBytes = options.maxBytes ?? defaultMaxBytes;
    if (!Number.isSafeInteger(this.maxBytes) || this.maxBytes < 1) throw new RangeError("maxBytes is not a positive integer");
    this.#deduplicator = options.deduplicator ?? new MemoryDeduplicator();
    // Object.entries knows no prototype, and a Map has no names of its own.
    this.#on = new Map(Object.entries(options.on ?? {}).filter(([, handler]) => handler !== undefined) as [string, (event: any) => unknown][]);
    for (const pattern of this.#on.keys()) checkPattern(pattern, options.resources ?? []);
    // An unset variable is no error yet: builds import routes without their secrets. Deliveries then get 500 and are retried.
    if (typeof options.secret !== "function" && options.secret !== undefined) [options.secret].flat().forEach(keyBytes);
  }

  /** Answers a request whose body was read. */
  async handle(method: string, headers: HeadersLike, body: string | Uint8Array, env?: Env): Promise<Answer> {
    const bytes = bytesOf(body);
    const status = this.refuse(method, headers, bytes.length);
    if (status) return answer(status);
    try {
      const keys = await this.#loadKeys(env as Env);
      const { id, key } = await verifySignature(keys, headers, bytes, this.#options);
      const envelope = decode(bytes);
      const pattern = route(this.#on, envelope.type);
      if (pattern === null) return answer(200);
      const attempt = headerMap(headers).get("x-clinik-attempt")?.[0] ?? "";
      const event: Event = { ...envelope, deliveryId: id, attempt: /^[0-9]{1,9}$/.test(attempt) ? Number(attempt) : 0, raw: bytes };
      return await this.#once(key, event, this.#on.get(pattern)!);
    } catch (error) {
      const status = error instanceof Refused ? (error.reason === "not_an_event" ? 400 : 401) : 500;
      this.#report(error, { status });
      return answer(status, error instanceof Refused ? error.reason : undefined);
    }
  }

  /** Returns why a request is not read, as a status, or 0. */
  refuse(method: string, headers: HeadersLike, length: number): number {
    if (method !== "POST") return 405;
    const map = headerMap(headers);
    const coding = (map.get("content-encoding") ?? []).join(",").trim().toLowerCase();
    if (coding !== "" && coding !== "identity") return 415;
    const [media = "", ...parameters] = (map.get("content-type")?.[0] ?? "").toLowerCase().split(";");
    const charset = /charset="?([^";\s]*)/.exec(parameters.join(";"))?.[1];
    if ((media !== "" && media.trim() !== "application/json" && !media.trim().endsWith("+json")) || (charset !== undefined && charset !== "utf-8")) return 415;
    return length > this.maxBytes ? 413 : 0;
  }

  async #loadKeys(env: Env): Promise<CryptoKey[]> {
    const secret = typeof this.#options.secret === "function" ? await this.#options.secret(env) : this.#options.secret;
    const texts = [secret ?? []].flat() as readonly string[];
    if (texts.length === 0) throw new TypeError("there is no secret: is its environment variable set?");
    const known = this.#keys;
    if (known && known.texts.length === texts.length && known.texts.every((text, i) => text === texts[i])) return known.keys;
    const keys = Promise.all(texts.map(parseKey));
    await keys;
    this.#keys = { texts, keys };
    return keys;
  }

  /** Runs the handler unless the delivery was handled, and records that it was if it succeeds. */
  async #once(key: string, event: Event, handler: (event: any) => unknown): Promise<Answer> {
    const about = { deliveryId: event.deliveryId, type: event.type };
    const owner = crypto.randomUUID();
    let claim: string | undefined;
    try {
      claim = await this.#deduplicator.claim(key, owner, this.#options.lease ?? 300_000);
    } catch (error) {
      this.#report(error, { ...about, status: 200 }); // deliver rather than lose
    }
    if (claim === "handled") return answer(200, undefined, { duplicate: true });
    if (claim === "in_progress") return answer(409);
    try {
      await handler(event);
    } catch (error) {
      if (claim === "claimed") await this.#deduplicator.release(key, owner).catch((e: unknown) => this.#report(e, { ...about, status: 500 }));
      const status = error instanceof Stop ? 410 : error instanceof Retry ? 503 : 500;
      this.#report(error, { ...about, status });
      const result = answer(status);
      if (error instanceof Retry) result.headers["retry-after"] = String(Number.isFinite(error.seconds) ? Math.max(1, Math.ceil(error.seconds)) : 60);
      return result;
    }
    try {
      await this.#deduplicator.done(key);
    } catch (error) {
      this.#report(error, { ...about, status: 200 });
    }
    return answer(200);
  }

  #report(error: unknown, about: { deliveryId?: string; type?: string; status: number }): void {
    try {
      (this.#options.onError ?? ((e, a) => console.error("eventflow-receiver:", a, e)))(error, about);
    } catch {
      // What a logger throws must not become the answer.
    }
  }
}

const phrases: Record<number, string> = {
  400: "not an event", 401: "signature", 405: "only POST is answered", 409: "the delivery is being handled", 410: "stopped", 413: "too large",
  415: "not JSON in UTF-8, or compressed", 500: "the handler failed", 503: "later",
};

export function answer(status: number, reason?: Reason, extra: object = {}): Answer {
  const headers: Record<string, string> = { "content-type": "application/json" };
  if (status === 405) headers["allow"] = "POST";
  const body = status === 200 ? { received: true, ...extra } : { error: phrases[status] ?? "failed", ...(reason && { reason }) };
  return { status, headers, body: JSON.stringify(body) };
}
