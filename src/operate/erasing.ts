import { randomUUID } from 'node:crypto';
import { partitionOfKey } from '../catalog/catalog-keys.ts';
import { createCatalogTurn } from '../catalog/catalog-turn.ts';
import type { Duck } from '../catalog/duck.ts';
import { eraseManifestLines, isManifestList, MANIFESTS_PREFIX } from '../catalog/erase-manifest.ts';
import { eraseObjects } from '../catalog/erase-objects.ts';
import { rewriteOutbox, searchOutbox } from '../catalog/erase-outbox.ts';
import { eraseFromReports, REPORTS_PREFIX } from '../catalog/erase-reports.ts';
import { eraseRows, mayHold, NAMELESS, ROWS_IN_ORDER } from '../catalog/erase-rows.ts';
import { searchBucket } from '../catalog/erase-search.ts';
import { createTombstones, withoutErased } from '../catalog/erase-tombstones.ts';
import type { Wanted } from '../catalog/erase-wanted.ts';
import { createOutboxReader } from '../catalog/outbox-reader.ts';
import { finishReplacements } from '../catalog/replace-files.ts';
import type { TableName } from '../catalog/table.ts';
import { eraseJobs, eraseMarkers, findJobs, grepRedis, jobIdsOf } from '../queue/erase-jobs.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import type { VersionSweep } from '../store/version-sweep.ts';
import { type Clock, DAY } from '../time.ts';

export type Counts = Readonly<Record<string, number>>;

export interface ErasingParts {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly files: BucketFiles;
  readonly sweep: VersionSweep;
  readonly store: ArchiveStore;
  readonly duck: Duck;
  /** On this machine's disk. */
  readonly folder: string;
  readonly flushRows: number;
  readonly mediaTtlMs: number;
  readonly now: Clock;
  /** How long media that are being archived just now are waited for. */
  readonly waitMs: number;
  /** Told of each key of the bucket: it is gone, or would go, or could not be removed. */
  readonly onKey: (key: string, failed?: unknown) => void;
}

/**
 * The parts of an erasure. Each is harmless to repeat, and a run that was broken off anywhere is done again with the same
 * words: what tells whose a media is goes last.
 */
export interface Erasing {
  /** Finds what is to go and adds it to `wanted`. Changes nothing. */
  search(signal: AbortSignal): Promise<void>;
  /** Counts what is there of what is wanted. Changes nothing. */
  look(signal: AbortSignal): Promise<Counts>;
  /**
   * Removes what is wanted. The caller holds the lease of the catalog. Stops before the rows of the catalog when something
   * is in the way, since they find it the next time.
   *
   * @param onRemoved told what was removed, step by step.
   * @returns what is in the way.
   */
  remove(onRemoved: (counts: Counts) => Promise<void>, signal: AbortSignal): Promise<Counts>;
}

/** What is looked through afterwards, in words. */
export const VERIFIED: readonly string[] = [
  'redis',
  'media/',
  'derived/',
  'annotations/',
  'dead-letters/',
  'catalog/',
  'manifests/',
  'verifications/',
  'open multipart uploads',
  'versions and delete markers',
];

export function createErasing(parts: ErasingParts, wanted: Wanted): Erasing {
  const { redis, keys, files, sweep, duck, folder, mediaTtlMs, waitMs, onKey } = parts;
  const tombstones = createTombstones(redis, keys);

  /** As the catalog process does, but for the rows of what is erased. */
  const turn = createCatalogTurn({
    ...parts,
    reader: withoutErased(createOutboxReader(redis, keys, randomUUID()), tombstones),
    closeAfterMs: 0,
    seal: async () => undefined,
    observe: () => undefined,
  });

  function ofCatalog(key: string): boolean {
    const partition = partitionOfKey(key);
    return partition !== undefined && mayHold(partition, wanted);
  }

  /** Files whose writer was killed: their parts hold rows, and nobody can look into them. Under the lease nobody is at one. */
  async function unendedFiles(dryRun: boolean, signal: AbortSignal): Promise<number> {
    return (
      (await sweep.abortUploads('catalog/', ofCatalog, dryRun, signal)) +
      (await sweep.abortUploads(MANIFESTS_PREFIX, isManifestList, dryRun, signal))
    );
  }

  /** What lies below what is current: nobody needs it, and nobody can look into it by its rows. */
  async function hidden(dryRun: boolean, signal: AbortSignal): Promise<number> {
    return (
      (await sweep.removeHidden('catalog/', ofCatalog, dryRun, signal)) +
      (await sweep.removeHidden(MANIFESTS_PREFIX, isManifestList, dryRun, signal)) +
      (await sweep.removeHidden(REPORTS_PREFIX, () => true, dryRun, signal))
    );
  }

  /** Jobs first, then the outbox, then the bucket: the way that a media goes, so that none slips by. */
  async function search(signal: AbortSignal): Promise<void> {
    await findJobs(redis, keys, wanted);
    await searchOutbox(redis, keys, wanted);
    await searchBucket({ files, sweep, duck, folder }, wanted, signal);
  }

  async function look(signal: AbortSignal): Promise<Counts> {
    const jobs = await findJobs(redis, keys, wanted);
    const { markers, listed } = await eraseMarkers(redis, keys, wanted, true, 0, signal);
    const outboxEntries = await searchOutbox(redis, keys, wanted);
    const objects = await eraseObjects({ files, sweep, onKey }, wanted, true, signal);
    const lines = await eraseManifestLines({ files, folder }, wanted, true, signal);
    const reports = await eraseFromReports(files, wanted, true, signal);
    const { rows, files: catalogFiles } = await eraseRows({ files, duck, folder }, wanted, ROWS_IN_ORDER, true, signal);
    const found = await grepRedis(redis, keys, wanted);
    return {
      jobs: jobs.length,
      markers,
      listed,
      outboxEntries,
      ...objects,
      uploads: objects.uploads + (await unendedFiles(true, signal)),
      manifestLines: lines.lines,
      unreadableManifests: lines.unreadable.length,
      reports,
      rows,
      catalogFiles,
      hiddenVersions: await hidden(true, signal),
      redisKeys: found.length,
    };
  }

  async function remove(onRemoved: (counts: Counts) => Promise<void>, signal: AbortSignal): Promise<Counts> {
    // What names a media and not its person: whose it is may be told by nothing but what goes next, a job that waits, an
    // object without a row. A job that a worker takes up by now leaves its own row.
    await finishReplacements(files, signal);
    for (const table of NAMELESS) await rowsOf(table);
    await onRemoved({ reports: await eraseFromReports(files, wanted, false, signal) });

    // From here on nothing of it comes back.
    const keepMs = mediaTtlMs + DAY;
    await tombstones.set(jobIdsOf(wanted), keepMs);
    await tombstones.set(wanted.letterIds, keepMs);
    const jobs = await eraseJobs(redis, keys, wanted, waitMs, signal);
    const { markers, listed, underWay } = await eraseMarkers(redis, keys, wanted, false, waitMs, signal);
    await onRemoved({ jobs: jobs.removed, markers, listed });

    let notRemoved = 0;
    const told = (key: string, failed?: unknown): void => {
      notRemoved += failed === undefined ? 0 : 1;
      onKey(key, failed);
    };
    const { ...objects } = await eraseObjects({ files, sweep, onKey: told }, wanted, false, signal);
    await onRemoved(objects);
    await turn.flushAll(signal);

    const inTheWay = { activeJobs: jobs.active, lettersUnderWay: underWay, keysNotRemoved: notRemoved };
    if (Object.values(inTheWay).some((count) => count > 0)) return inTheWay;

    const { lines } = await eraseManifestLines({ files, folder }, wanted, false, signal);
    await onRemoved({ manifestLines: lines });
    for (const table of ROWS_IN_ORDER) await rowsOf(table);
    await onRemoved({ hiddenVersions: await hidden(false, signal), uploads: await unendedFiles(false, signal) });
    // What was flushed is gone from the stream, and what came since is little.
    const isRewritten = await rewriteOutbox(redis, keys);
    return isRewritten ? {} : { outboxNotRewritten: 1 };

    async function rowsOf(table: TableName): Promise<void> {
      const { rows, files: catalogFiles } = await eraseRows({ files, duck, folder }, wanted, [table], false, signal);
      await onRemoved({ rows, catalogFiles });
    }
  }

  return { search, look, remove };
}
