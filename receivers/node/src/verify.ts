import { Refused } from "./event.js";

/** standard is webhook-signature; body is X-Clinik-Signature, which covers no id and no time, so that old deliveries pass. */
export type Scheme = "standard" | "body";

/** Headers as a platform has them: Fetch's, Node's object with arrays, or pairs. */
export type HeadersLike = Headers | Iterable<readonly [string, string]> | Readonly<Record<string, string | readonly string[] | undefined>>;

export interface VerifyOptions {
  scheme?: Scheme | undefined;
  /** How far webhook-timestamp may be from the clock, in seconds; 300 unless set. */
  tolerance?: number | undefined;
  /** The clock, in milliseconds. */
  now?: (() => number) | undefined;
}

const encoder = new TextEncoder();

/** Returns the values of each header by its name in lower case. */
export function headerMap(headers: HeadersLike): Map<string, string[]> {
  const map = new Map<string, string[]>();
  const pairs = Symbol.iterator in headers ? (headers as Iterable<readonly [string, string]>) : Object.entries(headers);
  for (const [name, value] of pairs as Iterable<readonly [string, unknown]>) {
    if (value === undefined || value === null) continue;
    const key = name.toLowerCase();
    map.set(key, [...(map.get(key) ?? []), ...(Array.isArray(value) ? value.map(String) : [String(value)])]);
  }
  return map;
}

/** A body as bytes. A string is encoded in UTF-8: it must be the text as it was sent. */
export const bytesOf = (body: string | Uint8Array): Uint8Array<ArrayBuffer> =>
  typeof body === "string" ? encoder.encode(body) : new Uint8Array(body);

const odd = /[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}\ufffd]|(?! )\p{Zs}/u;

/** The prefixes of keys in base64: shared ones, and the public and the private half of an ed25519 pair. */
const prefixes = ["whsec_", "whpk_", "whsk_"];

/** Returns a key for HMAC, or a pair's public key (whpk_). The error says what is wrong with the text, and does not show it. */
export async function parseKey(text: unknown): Promise<CryptoKey> {
  const bytes = keyBytes(text);
  if (!(text as string).startsWith("whpk_")) return crypto.subtle.importKey("raw", bytes, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  return crypto.subtle.importKey("raw", bytes, { name: "Ed25519" }, false, ["verify"]);
}

/** Returns a key's bytes; throws TypeError. */
export function keyBytes(text: unknown): Uint8Array<ArrayBuffer> {
  if (typeof text !== "string") throw new TypeError("the secret is no string: is its environment variable set?");
  if (odd.test(text) || text.trim() !== text) throw new TypeError("the secret has white space around it, or a character that nobody sees");
  const prefix = prefixes.find((p) => text.toLowerCase().startsWith(p)) ?? "";
  if (text.startsWith("v1,whsec_") || !text.startsWith(prefix)) throw new TypeError("the secret's prefix is not whsec_ or whpk_");
  if (prefix === "whsk_") throw new TypeError("this is the private key, the sender's alone: the receiver needs the public one, whpk_");
  let bytes = encoder.encode(text);
  if (prefix !== "") {
    const encoded = text.slice(prefix.length);
    const bare = encoded.replace(/=+$/, "");
    const padding = encoded.length - bare.length;
    if (!/^[A-Za-z0-9+/]*$/.test(bare) || bare.length % 4 === 1 || (padding > 0 && padding !== (4 - (bare.length % 4)) % 4)) {
      throw new TypeError(`the part behind ${prefix} is not base64`);
    }
    bytes = Uint8Array.from(atob(bare), (c) => c.charCodeAt(0));
  }
  if (prefix === "whpk_" && bytes.length !== 32) throw new TypeError(`the public key has ${bytes.length} bytes, want 32`);
  if (bytes.length < 24 || bytes.length > 512) throw new TypeError(`the secret has ${bytes.length} bytes, want 24 to 512`);
  return bytes;
}

/** Throws unless the options are good. NaN and Infinity would accept any time. */
export function checkOptions({ scheme = "standard", tolerance = 300 }: VerifyOptions): void {
  if (!Number.isFinite(tolerance) || tolerance < 1) throw new RangeError("the tolerance is not a number of seconds, at least 1");
  if (scheme !== "standard" && scheme !== "body") throw new TypeError("the scheme is neither standard nor body");
}

/** What the headers say of a delivery whose signature is right. key is what deduplication remembers. */
export interface Verified {
  id: string;
  key: string;
}

/** Verifies a signature; throws Refused. */
export async function verifySignature(keys: readonly CryptoKey[], headers: HeadersLike, body: Uint8Array<ArrayBuffer>, options: VerifyOptions = {}): Promise<Verified> {
  checkOptions(options);
  const map = headerMap(headers);
  return options.scheme === "body" ? verifyBody(keys, map, body) : verifyStandard(keys, map, body, options);
}

async function verifyStandard(keys: readonly CryptoKey[], map: Map<string, string[]>, body: Uint8Array, options: VerifyOptions): Promise<Verified> {
  const id = single(map, "webhook-id");
  const timestamp = single(map, "webhook-timestamp");
  const signatures = single(map, "webhook-signature");
  // A comma before a blank: repeated headers that Fetch joined.
  if (!isId(id) || !/^[0-9]{1,15}$/.test(timestamp) || !/^[\t -~]+$/.test(signatures) || /,([ \t]|$)/.test(signatures)) throw new Refused("malformed");
  const now = Math.floor((options.now ?? Date.now)() / 1000);
  const tolerance = options.tolerance ?? 300;
  // Written so that NaN is refused.
  if (!(Math.abs(now - Number(timestamp)) <= tolerance)) throw new Refused("expired");

  const prefix = encoder.encode(`${id}.${timestamp}.`);
  const signed = new Uint8Array(prefix.length + body.length);
  signed.set(prefix);
  signed.set(body, prefix.length);
  const given = signatures.split(/[ \t]+/);
  for (const key of keys) {
    if (isPublic(key)) {
      if (await verifyPair(key, given, signed)) return { id, key: id };
      continue;
    }
    const mac = new Uint8Array(await crypto.subtle.sign("HMAC", key, signed));
    const want = "v1," + btoa(String.fromCharCode(...mac));
    if (given.some((signature) => equal(signature, want))) return { id, key: id };
  }
  throw new Refused("mismatch");
}

const isPublic = (key: CryptoKey) => key.algorithm.name !== "HMAC";

/** How many v1a signatures are looked at for each key: each more would let anyone buy the time of a verification. */
const maxAsymmetric = 8;

/** The one way to write 64 bytes: the last character before the padding has four bits that are 0. */
const asymmetric = /^v1a,([A-Za-z0-9+/]{85}[AQgw])==$/;

async function verifyPair(key: CryptoKey, given: readonly string[], signed: Uint8Array<ArrayBuffer>): Promise<boolean> {
  const encoded = given.map((signature) => asymmetric.exec(signature)?.[1]).filter((text) => text !== undefined);
  for (const text of encoded.slice(0, maxAsymmetric)) {
    const signature = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    if (await crypto.subtle.verify("Ed25519", key, signature, signed)) return true;
  }
  return false;
}

async function verifyBody(keys: readonly CryptoKey[], map: Map<string, string[]>, body: Uint8Array<ArrayBuffer>): Promise<Verified> {
  const given = single(map, map.has("x-clinik-signature") ? "x-clinik-signature" : "x-clinikapi-signature");
  if (!/^[\x00-\x7f]{64}$/.test(given)) throw new Refused("malformed");
  let found = false;
  for (const key of keys.filter((key) => !isPublic(key))) {
    if (equal(given, hex(await crypto.subtle.sign("HMAC", key, body)))) found = true;
  }
  if (!found) throw new Refused("mismatch");
  const id = single(map, "x-clinik-delivery-id");
  if (!isId(id)) throw new Refused("malformed");
  // No signature covers the id: remembered is the id with the body, so that one delivery cannot be taken for another.
  return { id, key: `${id}.${hex(await crypto.subtle.digest("SHA-256", body)).slice(0, 32)}` };
}

function single(map: Map<string, string[]>, name: string): string {
  const values = map.get(name) ?? [];
  if (values.length > 1) throw new Refused("malformed");
  if (!values[0]) throw new Refused("missing");
  return values[0];
}

/** Visible ASCII but '.', which separates what is signed, and ',', by which repeated headers are joined. */
const isId = (id: string) => /^[!-+\-/-~]{1,256}$/.test(id);

const hex = (bytes: ArrayBuffer) => Array.from(new Uint8Array(bytes), (b) => b.toString(16).padStart(2, "0")).join("");

/** Compares in a time that depends on the lengths alone, which are no secret. */
export function equal(a: string, b: string): boolean {
  if (a.length !== b.length) return false;
  let different = 0;
  for (let i = 0; i < a.length; i++) different |= a.charCodeAt(i) ^ b.charCodeAt(i);
  return different === 0;
}
