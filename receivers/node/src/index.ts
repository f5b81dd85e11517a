import { decode, Event } from "./event.js";
import { bytesOf, HeadersLike, parseKey, VerifyOptions, verifySignature } from "./verify.js";

export * from "./event.js";
export * from "./dedupe.js";
export * from "./adapters.js";
export * from "./pull.js";
export { Receiver, Retry, Stop, type Answer, type Handlers, type Options, type Secrets } from "./handler.js";
export type { HeadersLike, Scheme, VerifyOptions } from "./verify.js";

/** Verifies a delivery and returns its event; throws Refused. body is what was sent, not what a parser made of it. */
export async function verify(body: string | Uint8Array, headers: HeadersLike, secret: string | readonly string[], options: VerifyOptions = {}): Promise<Omit<Event, "attempt">> {
  const keys = await Promise.all([secret].flat().map(parseKey));
  const bytes = bytesOf(body);
  const { id } = await verifySignature(keys, headers, bytes, options);
  return { ...decode(bytes), deliveryId: id, raw: bytes };
}
