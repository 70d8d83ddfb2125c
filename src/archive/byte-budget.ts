interface Waiting {
  readonly bytes: number;
  readonly grant: () => void;
}

/** Bytes set aside for one body. Give them back with `using` or `release`; more than once is harmless. */
export interface Reservation extends Disposable {
  readonly bytes: number;
  release(): void;
}

/**
 * Bounds the memory of all bodies in flight, so that it does not grow with concurrency times size.
 *
 * First come, first served: a large body is not overtaken for ever by small ones.
 */
export class ByteBudget {
  readonly totalBytes: number;
  #usedBytes = 0;
  readonly #queue: Waiting[] = [];

  constructor(totalBytes: number) {
    this.totalBytes = totalBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** How many bodies wait for room. */
  get waiting(): number {
    return this.#queue.length;
  }

  /**
   * Waits until `bytes` are free and takes them. A wish beyond the whole budget waits until it is alone.
   *
   * @throws the signal's reason when it aborts.
   */
  async reserve(bytes: number, signal: AbortSignal): Promise<Reservation> {
    signal.throwIfAborted();
    const wanted = Math.min(bytes, this.totalBytes);
    if (this.#queue.length > 0 || this.#usedBytes + wanted > this.totalBytes) await this.#wait(wanted, signal);
    else this.#usedBytes += wanted;
    return this.#reservation(wanted);
  }

  async #wait(bytes: number, signal: AbortSignal): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const waiting: Waiting = { bytes, grant: resolve };
    const onAbort = (): void => {
      const place = this.#queue.indexOf(waiting);
      // Granted already: the reservation is made and given back by its owner.
      if (place === -1) return;
      this.#queue.splice(place, 1);
      reject(signal.reason);
      this.#grantNext();
    };
    this.#queue.push(waiting);
    signal.addEventListener('abort', onAbort, { once: true });
    try {
      await promise;
    } finally {
      signal.removeEventListener('abort', onAbort);
    }
  }

  #reservation(bytes: number): Reservation {
    let held = true;
    const release = (): void => {
      if (!held) return;
      held = false;
      this.#usedBytes -= bytes;
      this.#grantNext();
    };
    return { bytes, release, [Symbol.dispose]: release };
  }

  #grantNext(): void {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      if (this.#usedBytes + next.bytes > this.totalBytes) return;
      this.#usedBytes += next.bytes;
      this.#queue.shift();
      next.grant();
    }
  }
}
