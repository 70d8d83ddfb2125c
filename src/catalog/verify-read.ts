import { setTimeout as sleep } from 'node:timers/promises';
import { type Failure, FailureError } from '../failure.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { iso, SECOND } from '../time.ts';
import { inParallel } from './in-parallel.ts';
import { type BytePace, readBack } from './read-back.ts';
import type { Comparison, VerifyScope } from './verify-compare.ts';
import { type Difference, judgeRead, judgeUnread, type Witnesses } from './verify-judge.ts';
import { MAX_KEPT, type VerifyProgress, writeProgress } from './verify-progress.ts';

/** Progress is written after so many objects, or so long. What was read since is read again after a kill. */
const SAVE_EVERY_OBJECTS = 1_000;
const SAVE_EVERY_MS = 5 * SECOND;
/** So many that can't be read in a row: the store is away, and to go on would only count its absence. */
const AWAY_AFTER = 100;
/** And so many in all. */
const MAX_UNCHECKED = 10_000;
/** Those that could not be read are tried so many times more, each after a longer pause. */
const LATE_TRIES = 3;
const LATE_PAUSE_MS = SECOND;
/** For the last save of a run that was stopped. */
const LAST_SAVE_MS = 10 * SECOND;

export interface ReadParts {
  readonly files: BucketFiles;
  readonly now: () => number;
  readonly concurrency: number;
  readonly pace: BytePace;
  readonly observe: (event: ReadEvent) => void;
}

export type ReadEvent =
  | { readonly type: 'read'; readonly bytes: number }
  | { readonly type: 'unchecked'; readonly key: string; readonly reason: string };

/**
 * Reads what is planned behind the last key, then what could not be read, and returns how far it got: to the end. What was
 * read is noted in the bucket as it goes on, and at last when it is ended before.
 *
 * @param tell is told of each difference at once, in no order.
 * @throws FailureError when the store is away. The signal's reason when it aborts.
 */
export async function readAll(
  { files, now, concurrency, pace, observe }: ReadParts,
  scope: VerifyScope,
  comparison: Comparison,
  before: VerifyProgress,
  tell: (difference: Difference) => void,
  signal: AbortSignal,
): Promise<VerifyProgress> {
  let { objects, bytes } = before;
  let unchecked = [...before.unchecked];
  const differences = [...before.differences];
  const counts = { ...before.counts };
  const order = createOrder(before.lastKey);
  /** What was found behind the last key that all keys before were done with is not to be saved: it is found again. */
  const ahead = new Map<string, Outcome>();
  let [savedAt, savedObjects] = [performance.now(), objects];
  let saving: Promise<void> | undefined;
  let inARow = 0;

  interface Outcome {
    readonly bytes: number;
    readonly found: readonly Difference[];
    readonly failed?: Failure;
  }

  async function look(witnesses: Witnesses): Promise<Outcome> {
    const read = await readBack(files, witnesses.key, pace, signal);
    if (!read.ok) return { bytes: 0, found: [], failed: read.failure };
    if (read.value === undefined) {
      const { listed: _, ...others } = witnesses;
      return { bytes: 0, found: judgeUnread(others, { closeNext: '', changedDays: new Set(), settledBefore: 0 }) };
    }
    return { bytes: read.value.sizeBytes, found: judgeRead(witnesses, read.value) };
  }

  function settle(key: string, { bytes: more, found, failed }: Outcome): void {
    if (failed !== undefined) unchecked.push({ key, reason: failed.code });
    else {
      objects += 1;
      bytes += more;
    }
    for (const difference of found) {
      counts[difference.difference] = (counts[difference.difference] ?? 0) + 1;
      if (differences.length < MAX_KEPT) differences.push(difference);
    }
  }

  function save(saveSignal: AbortSignal): Promise<void> {
    savedAt = performance.now();
    savedObjects = objects;
    const { startedAt, seed } = before;
    const progress = snapshot();
    return writeProgress(files, scope, { ...progress, startedAt, seed }, saveSignal);
  }

  function snapshot(): VerifyProgress {
    const { startedAt, seed } = before;
    const reached = { lastKey: order.reached, objects, bytes, differences, counts, unchecked };
    return { v: 1, startedAt, savedAt: iso(now()), seed, ...reached };
  }

  /** One save at a time. One that fails is made good by the next: only time is lost. */
  function saveWhenDue(): void {
    const isDue = objects - savedObjects >= SAVE_EVERY_OBJECTS || performance.now() - savedAt >= SAVE_EVERY_MS;
    if (!isDue || saving !== undefined) return;
    saving = save(signal)
      .catch(() => undefined)
      .finally(() => {
        saving = undefined;
      });
  }

  try {
    // There before the first object is read, so that a sample that is broken off is the same when it goes on.
    await save(signal);
    await inParallel(concurrency, order.following(comparison.planned(before.lastKey, signal)), async (witnesses) => {
      const { key } = witnesses;
      const outcome = await look(witnesses);
      inARow = outcome.failed === undefined ? 0 : inARow + 1;
      const isAway = inARow >= AWAY_AFTER || unchecked.length >= MAX_UNCHECKED;
      if (isAway && outcome.failed !== undefined) throw new FailureError(outcome.failed);
      for (const difference of outcome.found) tell(difference);
      observe({ type: 'read', bytes: outcome.bytes });
      ahead.set(key, outcome);
      for (const done of order.done(key)) {
        const settled = ahead.get(done);
        ahead.delete(done);
        if (settled !== undefined) settle(done, settled);
      }
      saveWhenDue();
    });
    for (let tries = 1; tries <= LATE_TRIES && unchecked.length > 0; tries += 1) {
      if (tries > 1) await sleep(LATE_PAUSE_MS * tries, undefined, { signal });
      const again = await comparison.some(
        unchecked.map(({ key }) => key),
        signal,
      );
      // What was erased, or is no longer to be read, since the run that was broken off.
      unchecked = [];
      await inParallel(concurrency, again, async (witnesses) => {
        const outcome = await look(witnesses);
        for (const difference of outcome.found) tell(difference);
        settle(witnesses.key, outcome);
      });
    }
    for (const { key, reason } of unchecked) observe({ type: 'unchecked', key, reason });
    await saving;
    if (unchecked.length > 0) await save(signal);
    return snapshot();
  } catch (error) {
    await saving;
    // Whatever ended it. If the store is away, what was saved before is there when it comes back.
    await save(AbortSignal.timeout(LAST_SAVE_MS)).catch(() => undefined);
    throw error;
  }
}

/** Knows up to which key all are done, of those that are taken in order and done in any. */
function createOrder(start: string) {
  let reached = start;
  const open: { readonly key: string; done: boolean }[] = [];
  return {
    get reached() {
      return reached;
    },
    async *following(all: AsyncIterable<Witnesses>): AsyncIterable<Witnesses> {
      for await (const witnesses of all) {
        open.push({ key: witnesses.key, done: false });
        yield witnesses;
      }
    },
    /** Returns the keys that are reached with this one. */
    done(key: string): string[] {
      const own = open.find((other) => other.key === key);
      if (own !== undefined) own.done = true;
      const keys: string[] = [];
      for (let first = open[0]; first?.done === true; first = open[0]) {
        open.shift();
        reached = first.key;
        keys.push(first.key);
      }
      return keys;
    },
  };
}
