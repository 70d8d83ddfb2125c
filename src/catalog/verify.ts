import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DAY, HOUR, iso } from '../time.ts';
import { readState } from './catalog-state.ts';
import { daysBetween } from './days.ts';
import type { Duck } from './duck.ts';
import { MANIFESTS_PREFIX, WRITER } from './manifest.ts';
import { type Chain, type ChainLink, readChain } from './manifest-chain.ts';
import { createComparison, type VerifyScope } from './verify-compare.ts';
import { type DayState, type Difference, type DifferenceWord, judgeUnread, standingOf } from './verify-judge.ts';
import {
  lastVouched,
  MAX_KEPT,
  readProgress,
  type Tip,
  type VerifyProgress,
  type VerifyReport,
  writeReport,
} from './verify-progress.ts';
import { type ReadEvent, type ReadParts, readAll } from './verify-read.ts';

/** How long after an object was written the catalog may not have it yet. */
const SETTLED_AFTER_MS = HOUR;
/** What was read longer ago is read again: of what has come since, nothing before the last key would be read. */
const RESUMED_FOR_MS = 7 * DAY;

export interface VerifyParts extends ReadParts {
  readonly duck: Duck;
  /** On this machine's disk: about 500 bytes an object. */
  readonly folder: string;
  /** Decides what a new sample draws. */
  readonly newSeed: () => string;
  readonly observe: (event: VerifyEvent) => void;
}

/** What happens during a verification, for whoever watches. */
export type VerifyEvent =
  | ReadEvent
  | { readonly type: 'resumed'; readonly progress: VerifyProgress }
  /** What was broken off is too old to go on with. */
  | { readonly type: 'dropped'; readonly progress: VerifyProgress }
  | { readonly type: 'compared'; readonly listed: number; readonly toRead: number }
  | { readonly type: 'found'; readonly difference: Difference };

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
    const done = await readAll(parts, scope, comparison, progress, tally.found, signal);

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
