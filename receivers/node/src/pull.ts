import { Receiver } from "./handler.js";

export interface PullOptions {
  /** The dispatcher's URL, up to "/v1": status.publishURL of the WebhookDispatcher. */
  url: string;
  namespace: string;
  subscription: string;
  /** Returns the bearer token of a request. */
  token?: () => string | Promise<string>;
  /** How long a call waits for deliveries, in seconds up to 60; 30 unless set. */
  wait?: number;
  /** How many deliveries a call gets at most; 20 unless set. They are verified as their turn comes: within five minutes. */
  limit?: number;
  /** Ends the loop; what was handled is acknowledged then. */
  signal?: AbortSignal;
  /** Called with what keeps the dispatcher from being asked, and is tried again; console.error unless set. */
  onError?: (error: unknown) => void;
  fetch?: typeof fetch;
}

/** The dispatcher's answer to a call that no repetition will help. */
export class PullError extends Error {
  constructor(readonly status: number, readonly kind: string, detail: string) {
    super(`the dispatcher answered ${status}: ${detail}`);
  }
}

interface Page {
  deliveries: { headers: Record<string, string>; body: string }[];
  cursor: string;
}

/**
 * Takes the deliveries of a subscription with spec.delivery.mode Pull, for a program that no endpoint can reach. Each goes to the
 * receiver's handlers, one after the other, and is acknowledged once its handler has succeeded. One that fails is tried again, and
 * holds back those behind it. It ends with the signal, and throws a PullError that somebody has to mend.
 */
export async function pull(receiver: Receiver<any, any>, options: PullOptions): Promise<void> {
  const wait = options.wait ?? 30;
  const path = `/v1/namespaces/${encodeURIComponent(options.namespace)}/subscriptions/${encodeURIComponent(options.subscription)}/deliveries:pull`;
  const report = options.onError ?? ((error: unknown) => console.error("eventflow-pull:", error));
  let acknowledge: Record<string, string> = {};
  let failures = 0;

  const call = async (seconds: number, limit: number, stop?: AbortSignal): Promise<{ page: Page; status: number; retryAfter: number }> => {
    const query = new URLSearchParams({ ...acknowledge, wait: `${seconds}s`, limit: String(limit) });
    const within = AbortSignal.timeout((seconds + 30) * 1000);
    const headers: Record<string, string> = options.token ? { authorization: `Bearer ${await options.token()}` } : {};
    const response = await (options.fetch ?? fetch)(`${options.url.replace(/\/+$/, "")}${path}?${query}`, {
      headers, redirect: "manual", signal: stop ? AbortSignal.any([stop, within]) : within,
    });
    return { page: (await response.json()) as Page, status: response.status, retryAfter: Number(response.headers.get("retry-after") ?? 0) || 0 };
  };

  try {
    while (!options.signal?.aborted) {
      const began = Date.now();
      let pause = 0;
      try {
        const { page, status, retryAfter } = await call(wait, options.limit ?? 20, options.signal);
        if (status === 200) {
          const handled = await handleAll(receiver, page, options.signal);
          acknowledge = handled.count > 0 ? { after: page.cursor, handled: String(handled.count) } : {};
          if (handled.count > 0 || page.deliveries.length === 0) failures = 0;
          if (handled.failed) pause = Math.max(handled.retryAfter, backoff(failures++));
          else if (page.deliveries.length === 0 && Date.now() - began < wait * 500) pause = Math.max(retryAfter, 1); // it stops
        } else {
          const problem = page as unknown as { type?: string; detail?: string };
          const kind = problem.type?.split("#")[1] ?? "";
          const error = new PullError(status, kind, problem.detail ?? "no detail");
          const anew = kind === "cursor-invalid" || kind === "cursor-expired";
          if (anew) acknowledge = {};
          else if ([400, 401, 403, 405].includes(status) || (status === 409 && retryAfter === 0)) throw error;
          report(error);
          pause = Math.max(retryAfter, backoff(failures++));
        }
      } catch (error) {
        if (error instanceof PullError) throw error;
        if (options.signal?.aborted) break;
        report(error);
        pause = backoff(failures++);
      }
      await rest(pause, options.signal);
    }
  } finally {
    if (acknowledge["after"] !== undefined) await call(0, 1).catch(report); // what it answers comes again
  }
}

/** Hands a page's deliveries to the receiver, up to the first that fails. */
async function handleAll(receiver: Receiver<any, any>, page: Page, signal?: AbortSignal): Promise<{ count: number; failed: boolean; retryAfter: number }> {
  let count = 0;
  for (const delivery of page.deliveries) {
    if (signal?.aborted) break;
    const body = Uint8Array.from(atob(delivery.body), (c) => c.charCodeAt(0));
    const answer = await receiver.handle("POST", delivery.headers, body);
    if (answer.status !== 200) return { count, failed: true, retryAfter: Number(answer.headers["retry-after"] ?? 0) };
    count++;
  }
  return { count, failed: false, retryAfter: 0 };
}

/** Seconds of pause after a number of failures in a row, with jitter. */
const backoff = (failures: number) => Math.min(60, 2 ** Math.min(failures, 6)) * (0.5 + Math.random() / 2);

/** Waits for seconds, or until the signal. */
function rest(seconds: number, signal?: AbortSignal): Promise<void> {
  if (seconds <= 0 || signal?.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, seconds * 1000);
    signal?.addEventListener("abort", done);
  });
}
