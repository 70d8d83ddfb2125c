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

/**
 * Aborts when the process that has started this one over a channel of Node's closes it, or is gone. It is no signal: whoever
 * is told both ways to stop, as where a terminal or systemd tells all processes, is not told a second time.
 */
export function stopWithParent(): StopRequest {
  const controller = new AbortController();
  const onDisconnect = (): void =>
    controller.abort(new Error('the process that has started this one has let go of it'));
  process.once('disconnect', onDisconnect);
  // Gone before anybody here could listen; without a channel it is undefined.
  if (process.connected === false) onDisconnect();
  return { signal: controller.signal, release: () => process.off('disconnect', onDisconnect) };
}

/** Tells the process that has started this one over a channel, if one has, that it can do its work now. */
export function tellParentReady(): void {
  // It may be gone by now, which is told otherwise.
  process.send?.('ready', undefined, undefined, () => undefined);
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
