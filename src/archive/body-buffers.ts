/** Smaller ones are had from the heap at no cost. */
const SMALLEST_BYTES = 16 * 1024;
/** From each size to its double: so what is taken is never a quarter more than is wanted. */
const STEPS = 4;

/**
 * Memory for bodies, used again and again: a copy into fresh pages costs several times as much as one into pages that
 * are there.
 *
 * A buffer that somebody may still be sending must not be given back.
 */
export class BodyBuffers {
  readonly #maxIdleBytes: number;
  #idleBytes = 0;
  /** By the size of what lies behind them; the size that was given back last is the last one. */
  readonly #idle = new Map<number, Buffer[]>();

  /** @param maxIdleBytes kept while nobody uses them, at most. */
  constructor(maxIdleBytes: number) {
    this.#maxIdleBytes = maxIdleBytes;
  }

  /** How much memory a body of this size takes. */
  footprint(sizeBytes: number): number {
    if (sizeBytes < SMALLEST_BYTES) return sizeBytes;
    const step = 2 ** Math.floor(Math.log2(sizeBytes)) / STEPS;
    return Math.ceil(sizeBytes / step) * step;
  }

  /** Returns exactly as many bytes, with anything in them. */
  take(sizeBytes: number): Buffer {
    const footprint = this.footprint(sizeBytes);
    const idle = this.#idle.get(footprint)?.pop();
    if (idle === undefined) return Buffer.allocUnsafeSlow(footprint).subarray(0, sizeBytes);
    this.#idleBytes -= footprint;
    return idle.subarray(0, sizeBytes);
  }

  /** Takes back what `take` gave. Nobody may hold it any more. */
  give({ buffer }: Buffer): void {
    const footprint = buffer.byteLength;
    if (footprint < SMALLEST_BYTES || footprint > this.#maxIdleBytes) return;
    const idle = this.#idle.get(footprint) ?? [];
    this.#idle.delete(footprint);
    this.#idle.set(footprint, idle);
    idle.push(Buffer.from(buffer));
    this.#idleBytes += footprint;
    while (this.#idleBytes > this.#maxIdleBytes) this.#letGo();
  }

  /** Of a size that nobody has had for the longest time: what is archived now is kept for. */
  #letGo(): void {
    for (const [footprint, idle] of this.#idle) {
      if (idle.pop() === undefined) continue;
      this.#idleBytes -= footprint;
      return;
    }
  }
}
