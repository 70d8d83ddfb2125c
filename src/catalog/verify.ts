import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Failure, FailureError } from '../failure.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { DAY, HOUR, iso, SECOND } from '../time.ts';
import { readState } from './catalog-state.ts';
import { daysBetween } from './days.ts';
import type { Duck } from './duck.ts';
import { inParallel } from './in-parallel.ts';
import { MANIFESTS_PREFIX, WRITER } from './manifest.ts';
import { type Chain, type ChainLink, readChain } from './manifest-chain.ts';
import { type BytePace, readBack } from './read-back.ts';
import { type Comparison, createComparison, type VerifyScope } from './verify-compare.ts';
import {
  type DayState,
  type Difference,
  type DifferenceWord,
  judgeRead,
  judgeUnread,
  standingOf,
  type Witnesses,
} from './verify-judge.ts';
import {
  lastVouched,
  MAX_KEPT,
  readProgress,
  type Tip,
  type VerifyProgress,
  type VerifyReport,
  writeProgress,
  writeReport,
} from './verify-progress.ts';

/** How long after an object was written the catalog may not have it yet. */
const SETTLED_AFTER_MS = HOUR;
/** What was read longer ago is read again: of what has come since, nothing before the last key would be read. */
const RESUMED_FOR_MS = 7 * DAY;
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

export interface VerifyParts {
  readonly files: BucketFiles;
  readonly duck: Duck;
  /** On this machine's disk: about 500 bytes an object. */
  readonly folder: string;
  readonly now: () => number;
  /** Decides what a new sample draws. */
  readonly newSeed: () => string;
  readonly concurrency: number;
  readonly pace: BytePace;
  readonly observe: (event: VerifyEvent) => void;
}

/** What happens during a verification, for whoever watches. */
export type VerifyEvent =
  | { readonly type: 'resumed'; readonly progress: VerifyProgress }
  /** What was broken off is too old to go on with. */
  | { readonly type: 'dropped'; readonly progress: VerifyProgress }
  | { readonly type: 'compared'; readonly listed: number; readonly toRead: number }
  | { readonly type: 'found'; readonly difference: Difference }
  | { readonly type: 'read'; readonly bytes: number }
  | { readonly type: 'unchecked'; readonly key: string; readonly reason: string };

export interface Verified {
  readonly counts: Readonly<Partial<Record<DifferenceWord, number>>>;
  /** Could not be read to the end. The same command tries them again. */
  readonly unchecked: number;
  readonly report: VerifyReport;
  /** Where it lies; absent while something is unchecked. */
  readonly reportKey?: string;
}

/**
 * Verifies the archive: the chain of manifests and their lists, then objects, rows and manifests against each other, then
 * objects byte by byte.
 *
 * What was read is noted in the bucket as it goes on, at one key for each scope. Broken off at any point, by a signal or a
 * kill, the same call goes on behind it; the comparisons, which are quick, are made anew. At the end a report takes the
 * place of the note. An object that can't be read now is `unchecked`, which is neither right nor different.
 *
 * Memory does not grow with the number of objects: only DuckDB's buffers, and a chunk of each object that is being read.
 *
 * @param restart forgets what was broken off.
 * @throws FailureError when the bucket can't be read; what was noted stays. The signal's reason when it aborts.
 */
export async function verify(
  parts: VerifyParts,
  scope: VerifyScope,
  restart: boolean,
  signal: AbortSignal,
): Promise<Verified> {
  const { files, observe, now } = parts;
  const work = await mkdtemp(join(parts.folder, 'verify-'));
  try {
    const startedAt = iso(now());
    const noted = restart ? undefined : await readProgress(files, scope, signal);
    const isTooOld = noted !== undefined && !(Date.parse(noted.startedAt) >= now() - RESUMED_FOR_MS);
    if (isTooOld) observe({ type: 'dropped', progress: noted });
    const before = isTooOld ? undefined : noted;
    const progress = before ?? newProgress(startedAt, parts.newSeed());
    const tally = createTally(observe);
    if (before !== undefined) {
      observe({ type: 'resumed', progress: before });
      for (const difference of before.differences) tally.found(difference);
      tally.omitted(before.counts, before.differences);
    }
    const { closeNext = '', changedDays } = await readState(files, signal);
    const days: DayState = {
      closeNext,
      changedDays: new Set(changedDays),
      settledBefore: now() - SETTLED_AFTER_MS,
    };
    const chain = await readChain(files, signal);
    const vouched = await lastVouched(files, signal);
    for (const difference of chainDifferences(chain, days, vouched)) tally.found(difference);

    const comparison = createComparison({ ...parts, folder: work }, scope, days);
    const compared = await comparison.gather(chain.links, progress.seed, tally.found, signal);
    let due = 0;
    for await (const witnesses of comparison.incomplete(signal)) {
      const differences = judgeUnread(witnesses, days);
      for (const difference of differences) tally.found(difference);
      if (differences.length === 0 && standingOf(witnesses, days) === 'due') due += 1;
    }
    const toRead = (await comparison.left(progress.lastKey, signal)) + progress.unchecked.length;
    observe({ type: 'compared', listed: compared.listed, toRead });
    const done = await readAll(parts, scope, comparison, progress, tally, signal);

    const report: VerifyReport = {
      v: 1,
      scope,
      startedAt: progress.startedAt,
      endedAt: iso(now()),
      writer: WRITER,
      tip: tipOf(chain.links),
      vouched: vouched === undefined || isIn(chain.links, vouched.tip) ? tipOf(chain.links) : vouched.tip,
      manifests: { heads: chain.links.length, lists: compared.lists, erasedLines: compared.erased },
      objects: { listed: compared.listed, rows: compared.rows, sealed: compared.sealed, read: done.objects },
      due,
      bytesRead: done.bytes,
      counts: tally.counts,
      differences: tally.kept,
    };
    const unchecked = done.unchecked.length;
    if (unchecked > 0) return { counts: tally.counts, unchecked, report };
    return { counts: tally.counts, unchecked, report, reportKey: await writeReport(files, report, signal) };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

function newProgress(startedAt: string, seed: string): VerifyProgress {
  const nothing = { objects: 0, bytes: 0, differences: [], counts: {}, unchecked: [] };
  return { v: 1, startedAt, savedAt: startedAt, seed, lastKey: '', ...nothing };
}

interface Tally {
  readonly counts: Partial<Record<DifferenceWord, number>>;
  readonly kept: Difference[];
  found(this: void, difference: Difference): void;
  omitted(counts: VerifyProgress['counts'], kept: readonly Difference[]): void;
}

/** Counts differences, and keeps the first of them. */
function createTally(observe: VerifyParts['observe']): Tally {
  const counts: Partial<Record<DifferenceWord, number>> = {};
  const kept: Difference[] = [];
  return {
    counts,
    kept,
    found: (difference) => {
      counts[difference.difference] = (counts[difference.difference] ?? 0) + 1;
      if (kept.length < MAX_KEPT) kept.push(difference);
      observe({ type: 'found', difference });
    },
    omitted: (all, told) => {
      for (const [word, count] of Object.entries(all) as [DifferenceWord, number][]) {
        const more = count - told.filter(({ difference }) => difference === word).length;
        if (more > 0) counts[word] = (counts[word] ?? 0) + more;
      }
    },
  };
}

/** What is wrong with the chain itself, with days that are closed and have no manifest, and with what was vouched for before. */
function chainDifferences(
  { links, breaks }: Chain,
  { closeNext, changedDays }: DayState,
  vouched: { readonly key: string; readonly tip: Tip } | undefined,
): Difference[] {
  const found = breaks.map((broken): Difference => ({ difference: 'chain-broken', ...broken, sealed: true }));
  const sealedDays = new Set(links.map(({ dt }) => dt));
  const [first] = links;
  if (first !== undefined) {
    for (const dt of daysBetween(first.dt, closeNext)) {
      if (dt === closeNext || sealedDays.has(dt) || changedDays.has(dt)) continue;
      const key = `${MANIFESTS_PREFIX}dt=${dt}/`;
      found.push({ difference: 'chain-broken', key, expected: 'a manifest', found: 'none', sealed: true });
    }
  }
  if (vouched !== undefined && !isIn(links, vouched.tip)) {
    const { sequence, sha256, dt } = vouched.tip;
    const link = links.find((other) => other.sequence === sequence);
    const key = link?.key ?? `${MANIFESTS_PREFIX}dt=${dt}/`;
    const expected = `${sequence} ${sha256}, as ${vouched.key} says`;
    found.push({ difference: 'chain-broken', key, expected, found: link?.sha256 ?? 'none', sealed: true });
  }
  return found;
}

function isIn(links: readonly ChainLink[], { sequence, sha256 }: Tip): boolean {
  return links.some((link) => link.sequence === sequence && link.sha256 === sha256);
}

function tipOf(links: readonly ChainLink[]): VerifyReport['tip'] {
  const tip = links.at(-1);
  return tip === undefined ? null : { sequence: tip.sequence, dt: tip.dt, sha256: tip.sha256 };
}

/** Reads what is planned behind the last key, then what could not be read, and returns how far it got: to the end. */
async function readAll(
  { files, now, concurrency, pace, observe }: VerifyParts,
  scope: VerifyScope,
  comparison: Comparison,
  before: VerifyProgress,
  tally: Tally,
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
      for (const difference of outcome.found) tally.found(difference);
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
        for (const difference of outcome.found) tally.found(difference);
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
