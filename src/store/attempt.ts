import { FailureError, type Result, succeed } from '../failure.ts';
import { classifyStoreError } from './s3-errors.ts';

/** Runs calls to the store and turns what they throw into a failure; an aborted signal is thrown on. */
export async function attempt<T>(signal: AbortSignal, run: () => Promise<T>): Promise<Result<T>> {
  signal.throwIfAborted();
  try {
    return succeed(await run());
  } catch (error) {
    signal.throwIfAborted();
    return { ok: false, failure: error instanceof FailureError ? error.failure : classifyStoreError(error) };
  }
}

/** For listings and streams, which can't return a failure. @throws the signal's reason once it is aborted, else a FailureError. */
export function throwStoreError(error: unknown, signal: AbortSignal): never {
  signal.throwIfAborted();
  throw error instanceof FailureError ? error : new FailureError(classifyStoreError(error));
}
