import type { BucketFiles, BucketObject } from '../store/bucket-files.ts';
import { dayOf } from '../store/object-keys.ts';
import { DAY, HOUR, iso, MINUTE } from '../time.ts';
import { dayPrefix, type Partition, partitionOfKey, sortable } from './catalog-keys.ts';
import { type CatalogState, readState, writeState } from './catalog-state.ts';
import { type Compacted, compact } from './compact.ts';
import { closesAt, dayAfter, daysBetween, firstDay } from './days.ts';
import { type Flushed, flush } from './flush.ts';
import type { OutboxEntry, OutboxReader } from './outbox-reader.ts';
import { type Reconciled, type ReconcileParts, reconcileDay } from './reconcile.ts';
import { reconcileLetters } from './reconcile-letters.ts';
import { finishReplacements } from './replace-files.ts';
import { spoiltFiles } from './spoilt-files.ts';
import { TABLE_NAMES, type TableName } from './table.ts';

/** How often it is looked whether something is to be merged or closed. */
export const UPKEEP_EVERY_MS = 10 * MINUTE;
/** By how much the clocks of a worker and of whoever rebuilds the catalog may differ. */
const CLOCK_SKEW_MS = HOUR;

/** What a turn has done, for logs and metrics. */
export type CatalogEvent =
  | ({
      readonly type: 'flushed';
      readonly entries: number;
      readonly isRepeated: boolean;
      readonly ms: number;
    } & Flushed)
  | { readonly type: 'unreadable'; readonly ids: readonly string[] }
  | { readonly type: 'finished'; readonly replacements: number }
  /** Nobody can read these files: what needs them is left for a later turn. */
  | { readonly type: 'spoilt'; readonly keys: readonly string[] }
  | ({ readonly type: 'compacted'; readonly partition: Partition } & Compacted)
  | ({
      readonly type: 'closed';
      readonly dt: string;
      /** Rows of dead letters that the outbox did not bring. */
      readonly letters: number;
    } & Reconciled);

export interface CatalogTurnParts extends ReconcileParts {
  readonly reader: OutboxReader;
  readonly flushRows: number;
  readonly mediaTtlMs: number;
  readonly closeAfterMs: number;
  /** Seals what a closed day holds. Told again of a day that has changed since. */
  readonly seal: (dt: string, signal: AbortSignal) => Promise<void>;
  readonly observe: (event: CatalogEvent) => void;
}

/**
 * The work of the catalog process. One process at a time does it: the caller holds the lease, and the signal aborts when
 * it is lost.
 */
export interface CatalogTurn {
  /** Writes what waits in the outbox to the bucket, as far as it had come when the last of it was taken. Harmless to break off at any point. @throws FailureError */
  flushAll(signal: AbortSignal): Promise<void>;
  /** Merges small files, and closes the days that are over. Harmless to break off at any point. @throws FailureError */
  upkeep(signal: AbortSignal): Promise<void>;
}

export function createCatalogTurn(parts: CatalogTurnParts): CatalogTurn {
  const { files, reader, flushRows, mediaTtlMs, closeAfterMs, seal, observe, now } = parts;

  async function flushAll(signal: AbortSignal): Promise<void> {
    const finished = await finishReplacements(files, signal);
    if (finished > 0) observe({ type: 'finished', replacements: finished });
    let state = await readState(files, signal);
    for (;;) {
      signal.throwIfAborted();
      const batch = await reader.take(flushRows);
      const [firstId, lastId] = [batch.ids[0], batch.ids.at(-1)];
      if (firstId === undefined || lastId === undefined) return;
      const startedAt = performance.now();
      // A Redis that was set back gives out again what is in the bucket.
      const isRepeated = batch.isRepeated || sortable(firstId) <= state.flushedId;
      if (sortable(lastId) > state.flushedId) {
        state = { ...state, flushedId: sortable(lastId) };
        await writeState(files, state, signal);
      }
      const entries = withSuspects(batch.entries, state);
      const flushed = await flush(parts, { ...batch, entries, isRepeated }, signal);
      state = await noteChanges(state, flushed.partitions, signal);
      await reader.done(batch);
      const ms = Math.round(performance.now() - startedAt);
      observe({ type: 'flushed', entries: batch.ids.length, isRepeated, ms, ...flushed });
      if (flushed.spoilt.length > 0) observe({ type: 'spoilt', keys: flushed.spoilt });
      if (batch.unreadable.length > 0) observe({ type: 'unreadable', ids: batch.unreadable });
      // What has come meanwhile waits for its time: there would always be a little more, in ever smaller files.
      if (batch.isLast) return;
    }
  }

  /** A day that is closed must be sealed again. Written before the rows are forgotten. */
  async function noteChanges(
    state: CatalogState,
    partitions: readonly Partition[],
    signal: AbortSignal,
  ): Promise<CatalogState> {
    const { closeNext = '', changedDays } = state;
    const late = partitions.filter(({ table, dt }) => table === 'media' && dt < closeNext).map(({ dt }) => dt);
    const changed = withDays(changedDays, late);
    if (changed.length === changedDays.length) return state;
    const next = { ...state, changedDays: changed };
    await writeState(files, next, signal);
    return next;
  }

  async function upkeep(signal: AbortSignal): Promise<void> {
    let state = await readState(files, signal);
    let dt = state.closeNext ?? (await firstDay(files, signal)) ?? dayOf(iso(now()));
    const waiting = new Set<string>();
    while (closesAt(dt, mediaTtlMs, closeAfterMs) <= now()) {
      if (!(await closeDay(dt, signal))) waiting.add(dt);
      const closed = dt;
      dt = dayAfter(dt);
      state = { ...(await readState(files, signal)), closeNext: dt };
      if (waiting.has(closed)) state = { ...state, changedDays: withDays(state.changedDays, [closed]) };
      await writeState(files, state, signal);
    }
    for (const changed of state.changedDays) {
      if (waiting.has(changed) || !(await closeDay(changed, signal))) continue;
      state = { ...state, changedDays: state.changedDays.filter((other) => other !== changed) };
      await writeState(files, state, signal);
    }
    // Clocks differ.
    for (const open of daysBetween(dt, dayOf(iso(now() + DAY)))) await compactDay(open, false, signal);
  }

  /** @returns false for a day with media files that nobody can read: it waits until they are made anew, and the others go on. */
  async function closeDay(dt: string, signal: AbortSignal): Promise<boolean> {
    try {
      const reconciled = await reconcileDay(parts, dt, signal);
      const letters = await reconcileLetters(parts, dt, signal);
      await compactDay(dt, true, signal);
      await seal(dt, signal);
      observe({ type: 'closed', dt, letters, ...reconciled });
      return true;
    } catch (error) {
      observe({
        type: 'spoilt',
        keys: await spoiltFiles(parts, keysOf(dayPrefix('media', dt), signal), error, signal),
      });
      return false;
    }
  }

  async function* keysOf(prefix: string, signal: AbortSignal): AsyncIterable<string> {
    for await (const { key } of files.list(prefix, signal)) yield key;
  }

  async function compactDay(dt: string, isClosed: boolean, signal: AbortSignal): Promise<void> {
    for (const table of TABLE_NAMES) {
      // One file a partition, always.
      if (table === 'dead-letters') continue;
      for await (const { partition, objects } of partitionsOf(files, table, dt, signal)) {
        try {
          const compacted = await compact(parts, partition, objects, isClosed, signal);
          if (compacted !== undefined) observe({ type: 'compacted', partition, ...compacted });
        } catch (error) {
          // A day whose media can't be read is not to be sealed.
          if (isClosed && table === 'media') throw error;
          const keys = objects.map(({ key }) => key);
          observe({ type: 'spoilt', keys: await spoiltFiles(parts, keys, error, signal) });
        }
      }
    }
  }

  return { flushAll, upkeep };
}

function withDays(days: readonly string[], more: readonly string[]): string[] {
  return [...new Set([...days, ...more])].toSorted();
}

/**
 * Marks what may be there because it was made from the bucket: a worker stores a media, and tells the outbox of it only
 * when Redis takes it. An object that was seen by a rebuild had been archived by then; those of a day that is closed were
 * looked through.
 */
async function* withSuspects(
  entries: AsyncIterable<OutboxEntry>,
  { rebuiltAt, closeNext = '' }: CatalogState,
): AsyncIterable<OutboxEntry> {
  const until = rebuiltAt + CLOCK_SKEW_MS;
  for await (const entry of entries) {
    const mayBeThere =
      entry.table.name === 'dead-letters'
        ? Number(entry.id.split('-')[0]) <= until
        : entry.table.name === 'media' &&
          entry.rows.some(
            (row) => Date.parse(String(row['archived_at'])) <= until || dayOf(String(row['received_at'])) < closeNext,
          );
    yield mayBeThere ? { ...entry, mayBeThere } : entry;
  }
}

/** The partitions of a day, each with its files. One listing for all: there may be thousands of apps. */
async function* partitionsOf(
  files: BucketFiles,
  table: TableName,
  dt: string,
  signal: AbortSignal,
): AsyncIterable<{ readonly partition: Partition; readonly objects: readonly BucketObject[] }> {
  let current: { readonly partition: Partition; readonly objects: BucketObject[] } | undefined;
  for await (const object of files.list(dayPrefix(table, dt), signal)) {
    const partition = partitionOfKey(object.key);
    if (partition === undefined) continue;
    if (current !== undefined && current.partition.app === partition.app) current.objects.push(object);
    else {
      if (current !== undefined) yield current;
      current = { partition, objects: [object] };
    }
  }
  if (current !== undefined) yield current;
}
