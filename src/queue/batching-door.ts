import { orAbort, timeLimit } from '../abort.ts';
import { type Door, type JobAdmission, PartlyAdmittedError } from './door.ts';

/** As many as the door puts into one command to Redis. */
const MAX_BATCH = 500;

const NEVER = new AbortController().signal;

export interface BatchingDoor {
  /**
   * Admits jobs together with those of other callers, and answers for each, in their order.
   *
   * Rejects as the door does, and with a `TimeoutError` when there is no answer in time. Repeating a call is harmless.
   * @param signal ends the waiting; jobs that are under way by then may be queued all the same.
   */
  admitEach(inputs: readonly unknown[], signal: AbortSignal): Promise<readonly JobAdmission[]>;
}

interface Caller {
  readonly inputs: readonly unknown[];
  readonly resolve: (answers: readonly JobAdmission[]) => void;
  readonly reject: (reason: unknown) => void;
}

/**
 * A door for many callers with few jobs each: what comes while others are under way goes through as one.
 *
 * A caller alone waits for nobody. Those who have given up are let go, with their jobs, so that a Redis that does not
 * answer fills no memory.
 *
 * @param timeoutMs for one caller, and for one batch.
 */
export function createBatchingDoor(door: Pick<Door, 'admitEach'>, timeoutMs: number): BatchingDoor {
  const waiting = new Set<Caller>();
  let underWay = false;

  /** Whole callers, as many as fit; one with more than that goes alone. */
  function takeBatch(): Caller[] {
    const batch: Caller[] = [];
    let count = 0;
    for (const caller of waiting) {
      count += caller.inputs.length;
      if (batch.length > 0 && count > MAX_BATCH) break;
      batch.push(caller);
      waiting.delete(caller);
    }
    return batch;
  }

  /** One at a time: two are no faster, and of one media in both the door would tell each that it was the first. */
  function next(): void {
    if (underWay || waiting.size === 0) return;
    underWay = true;
    void admitBatch(takeBatch()).finally(() => {
      underWay = false;
      next();
    });
  }

  /** Never rejects. */
  async function admitBatch(batch: readonly Caller[]): Promise<void> {
    try {
      const inputsOfAll = batch.flatMap(({ inputs }) => inputs);
      const { answers, refusal } = await limited((signal) => answersOf(inputsOfAll, signal));
      let start = 0;
      for (const { inputs, resolve, reject } of batch) {
        const own = answers.slice(start, start + inputs.length);
        start += inputs.length;
        const complete = own.filter((answer) => answer !== undefined);
        if (complete.length === own.length) resolve(complete);
        else reject(refusal);
      }
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  /** Where Redis refuses the jobs of one app, callers with those of others have their answers. */
  async function answersOf(
    inputs: readonly unknown[],
    signal: AbortSignal,
  ): Promise<{ readonly answers: readonly (JobAdmission | undefined)[]; readonly refusal?: unknown }> {
    try {
      return { answers: await door.admitEach(inputs, signal) };
    } catch (error) {
      if (!(error instanceof PartlyAdmittedError)) throw error;
      return { answers: error.answers, refusal: error.cause };
    }
  }

  /** A batch that Redis does not answer must not keep those behind it waiting for ever, nor go on beside them. */
  async function limited<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    using limit = timeLimit(NEVER, timeoutMs);
    return await orAbort(work(limit.signal), limit.signal);
  }

  return {
    admitEach: async (inputs, signal) => {
      signal.throwIfAborted();
      using limit = timeLimit(signal, timeoutMs);
      const { promise, resolve, reject } = Promise.withResolvers<readonly JobAdmission[]>();
      const caller: Caller = { inputs, resolve, reject };
      waiting.add(caller);
      next();
      try {
        return await orAbort(promise, limit.signal);
      } finally {
        waiting.delete(caller);
      }
    },
  };
}
