/** A process was asked to stop. */
export interface StopRequest {
  readonly signal: AbortSignal;
  /** Lets go of the process's signals. */
  release(): void;
}

/**
 * Turns SIGTERM and SIGINT into an AbortSignal. The second one ends the process at once, so that an operator is never
 * held up.
 */
export function stopOnSignals(): StopRequest {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    if (controller.signal.aborted) process.exit(128 + (name === 'SIGINT' ? 2 : 15));
    controller.abort(new Error(`received ${name}`));
  };
  process.on('SIGTERM', onSignal);
  process.on('SIGINT', onSignal);
  return {
    signal: controller.signal,
    release: () => {
      process.off('SIGTERM', onSignal);
      process.off('SIGINT', onSignal);
    },
  };
}

/** Runs `work`, but waits `ms` at most; returns false when it did not end by then. A failure counts as an end. */
export async function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  const { promise: timeout, resolve } = Promise.withResolvers<false>();
  const timer = setTimeout(() => resolve(false), ms);
  const ended = work.then(
    () => true,
    () => true,
  );
  const result = await Promise.race([ended, timeout]);
  clearTimeout(timer);
  return result;
}
