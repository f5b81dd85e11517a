/** The actions that every resource has. */
export const actions = ["created", "updated", "deleted"] as const;

/** The clinical resources that every dispatcher knows. */
export const resources = [
  "patient", "encounter", "observation", "medication", "appointment", "intake", "consent", "lab", "prescription", "note", "assessment",
  "document", "practitioner", "practitioner-role",
] as const;

export type Action = (typeof actions)[number];
export type Resource = (typeof resources)[number];
/** The 42 event types. */
export type EventType = `${Resource}.${Action}`;
/** "*" is all types, "patient.*" a family, "patient.created" one. R are a site's own resources. */
export type Pattern<R extends string = never> = "*" | `${Resource | R}.${Action | "*"}`;

/** The types that a pattern selects. */
export type Matching<P extends string> = P extends "*" ? string : P extends `${infer R}.*` ? `${R}.${Action}` : P;

/** The data of an event: what the producer sent. */
export interface EventData {
  resourceType?: string;
  resourceId?: string;
  action?: string;
  tenantId?: string;
  // What a producer sends is its own.
  [field: string]: any;
}

/**
 * The types of data that you know, by resource. Add yours:
 * `declare module "@clinikapi/eventflow-receiver" { interface DataByResource { appointment: Appointment } }`
 */
export interface DataByResource {}

type DataOf<T extends string> = T extends `${infer R}.${string}` ? (R extends keyof DataByResource ? DataByResource[R] : EventData) : EventData;

/** A verified delivery. */
export interface Event<T extends string = string> {
  readonly id: string;
  readonly type: T;
  readonly timestamp: Date;
  readonly data: DataOf<T>;
  /** The same on every attempt. */
  readonly deliveryId: string;
  /** 1 for the first, 0 if the header is missing. No signature covers it. */
  readonly attempt: number;
  /** The body as it was signed. */
  readonly raw: Uint8Array;
}

/** Why a delivery is refused: not_an_event is answered with 400, the others with 401. */
export type Reason = "missing" | "malformed" | "expired" | "mismatch" | "not_an_event";

/** A delivery that is not accepted. */
export class Refused extends Error {
  constructor(readonly reason: Reason) {
    super(reason);
  }
}

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/;
// ignoreBOM keeps the mark, which JSON.parse then refuses.
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Reads the envelope of a body; throws Refused. */
export function decode(body: Uint8Array): Pick<Event, "id" | "type" | "timestamp" | "data"> {
  let fields: any;
  try {
    const text = utf8.decode(body);
    // A key __proto__ is harmless here, but code that merges objects would make it a prototype.
    fields = /__proto__|\\u00/.test(text) ? JSON.parse(text, withoutProto) : JSON.parse(text);
  } catch {
    throw new Refused("not_an_event");
  }
  if (!isObject(fields)) throw new Refused("not_an_event");
  const { id, timestamp, data } = fields;
  const type = fields.type ?? fields.event;
  const ok = typeof id === "string" && id && typeof type === "string" && type && (fields.event ?? type) === type && isObject(data) &&
    typeof timestamp === "string" && rfc3339.test(timestamp) && !Number.isNaN(Date.parse(timestamp));
  if (!ok) throw new Refused("not_an_event");
  return { id, type, timestamp: new Date(timestamp), data };
}

function withoutProto(this: any, key: string, value: unknown): unknown {
  return key === "__proto__" ? undefined : value;
}

const isObject = (value: unknown): value is Record<string, any> => typeof value === "object" && value !== null && !Array.isArray(value);

/** What Event Flow says of subscriptions. */
const operational = [
  "eventflow.*", "eventflow.endpoint.failing", "eventflow.endpoint.recovered", "eventflow.endpoint.gone", "eventflow.delivery.failed",
  "eventflow.key.rotated",
];

/** Throws unless pattern is one, of a known resource. */
export function checkPattern(pattern: string, own: readonly string[]): void {
  if (pattern === "*") return;
  if (operational.includes(pattern)) return;
  const dot = pattern.indexOf(".");
  const [resource, action] = [pattern.slice(0, dot), pattern.slice(dot + 1)];
  const known = dot > 0 && ((resources as readonly string[]).includes(resource) || own.includes(resource));
  if (!known || (action !== "*" && !(actions as readonly string[]).includes(action))) {
    throw new TypeError(`pattern ${JSON.stringify(pattern)}: want *, {resource}.* or {resource}.{created|updated|deleted} of a known resource`);
  }
}

/** The pattern that gets a type: the most specific one. */
export function route(patterns: ReadonlyMap<string, unknown>, type: string): string | null {
  const dot = type.indexOf(".");
  const family = (dot < 0 ? type : type.slice(0, dot)) + ".*";
  return [type, family, "*"].find((pattern) => patterns.has(pattern)) ?? null;
}
