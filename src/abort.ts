/**
 * Waits for `work`, but no longer than `signal` allows.
 *
 * The work itself goes on: use it for calls that can't be cancelled, such as a Redis command.
 *
 * @throws the signal's reason when it aborts first.
 */
export async function orAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  // Work that loses the race must not end the process when it fails.
  work.catch(() => undefined);
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const onAbort = (): void => reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    return await Promise.race([work, promise]);
  } finally {
    signal.removeEventListener('abort', onAbort);
  }
}

/** Resolves when `signal` aborts. */
export async function untilAborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  const { promise, resolve } = Promise.withResolvers<void>();
  signal.addEventListener('abort', () => resolve(), { once: true });
  await promise;
}

/** A signal that ends with its parent or when its time is up, whichever is first. */
export interface TimeLimit extends Disposable {
  readonly signal: AbortSignal;
  /** True when it was the time; then the signal's reason is a `TimeoutError`. */
  readonly expired: boolean;
  /** Lets go of timer and parent. To be called when the work is over, or both stay in memory until the time is up. */
  end(): void;
}

export function timeLimit(parent: AbortSignal, ms: number): TimeLimit {
  const controller = new AbortController();
  let expired = false;
  const onAbort = (): void => controller.abort(parent.reason);
  const timer = setTimeout(() => {
    expired = true;
    controller.abort(new DOMException(`no end within ${ms} ms`, 'TimeoutError'));
  }, ms);
  if (parent.aborted) onAbort();
  else parent.addEventListener('abort', onAbort, { once: true });
  const end = (): void => {
    clearTimeout(timer);
    parent.removeEventListener('abort', onAbort);
  };
  return {
    signal: controller.signal,
    get expired() {
      return expired;
    },
    end,
    [Symbol.dispose]: end,
  };
}
