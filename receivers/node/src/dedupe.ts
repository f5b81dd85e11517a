/** Remembers which deliveries were handled. One that several processes share decides claim atomically. */
export interface Deduplicator {
  /** Takes the delivery for owner until the lease (in milliseconds) ends, unless it was handled or is claimed. */
  claim(key: string, owner: string, lease: number): Promise<"claimed" | "in_progress" | "handled">;
  /** Records that it was handled; to be kept for 73 hours. */
  done(key: string): Promise<void>;
  /** Gives the claim back, if it is still owner's and the delivery was not handled. */
  release(key: string, owner: string): Promise<void>;
}

/** A Deduplicator of one process. It forgets what was least recently seen, and all when the process ends. */
export class MemoryDeduplicator implements Deduplicator {
  readonly #claims = new Map<string, { owner: string; until: number }>();
  readonly #handled = new Map<string, number>(); // until when, in the order in which they were seen

  constructor(readonly limit = 100_000, readonly ttl = 73 * 3600_000, readonly now: () => number = Date.now) {}

  async claim(key: string, owner: string, lease: number): Promise<"claimed" | "in_progress" | "handled"> {
    const now = this.now();
    for (const [old, until] of this.#handled) {
      if (until > now) break;
      this.#handled.delete(old);
    }
    if (this.#handled.has(key)) {
      this.#remember(key);
      return "handled";
    }
    if ((this.#claims.get(key)?.until ?? 0) > now) return "in_progress";
    if (this.#claims.size >= this.limit) {
      for (const [old, { until }] of this.#claims) if (until <= now) this.#claims.delete(old);
      if (this.#claims.size >= this.limit) throw new Error("too many deliveries are in progress");
    }
    this.#claims.set(key, { owner, until: now + lease });
    return "claimed";
  }

  async done(key: string): Promise<void> {
    this.#claims.delete(key);
    this.#remember(key);
  }

  async release(key: string, owner: string): Promise<void> {
    if (this.#claims.get(key)?.owner === owner) this.#claims.delete(key);
  }

  #remember(key: string): void {
    this.#handled.delete(key);
    this.#handled.set(key, this.now() + this.ttl);
    for (const oldest of this.#handled.keys()) {
      if (this.#handled.size <= this.limit) break;
      this.#handled.delete(oldest);
    }
  }
}
