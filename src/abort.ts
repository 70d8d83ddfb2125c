/** Those who wait for work that is under way. */
type Waiters = Set<PromiseWithResolvers<unknown>>;

const waiting = new WeakMap<Promise<unknown>, Waiters>();

/**
 * Waits for `work`, but no longer than `signal` allows.
 *
 * The work itself goes on: use it for calls that can't be cancelled, such as a Redis command. However many wait for the
 * same work, those who have given up leave nothing behind on it.
 *
 * @throws the signal's reason when it aborts first.
 */
export async function orAbort<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const waiters = waitersFor(work);
  signal.throwIfAborted();
  const waiter = Promise.withResolvers<unknown>();
  const onAbort = (): void => waiter.reject(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });
  waiters.add(waiter);
  try {
    return (await waiter.promise) as T;
  } finally {
    waiters.delete(waiter);
    signal.removeEventListener('abort', onAbort);
  }
}

/**
 * Returns who waits for the work. A promise keeps for good whatever has been hung onto it, as does a race, so one thing is
 * hung onto it for all of them. Work that loses the race must not end the process when it fails: that handles it too.
 */
function waitersFor(work: Promise<unknown>): Waiters {
  const known = waiting.get(work);
  if (known !== undefined) return known;
  const waiters: Waiters = new Set();
  waiting.set(work, waiters);
  const end = (tell: (waiter: PromiseWithResolvers<unknown>) => void): void => {
    waiting.delete(work);
    for (const waiter of waiters) tell(waiter);
  };
  work.then(
    (value) => end(({ resolve }) => resolve(value)),
    (reason: unknown) => end(({ reject }) => reject(reason)),
  );
  return waiters;
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
