import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { BucketObject } from '../store/bucket-files.ts';
import type { Partition } from './catalog-keys.ts';
import { type FlushParts, unwrap } from './flush.ts';
import { MAX_FILE_BYTES, mergeSorted, SPLIT_FILE_BYTES } from './merge-sorted.ts';
import { localPath } from './parquet.ts';
import { replaceFiles } from './replace-files.ts';
import { TABLES } from './tables.ts';

const MIB = 1024 * 1024;
/** A file below is small: an engine spends more on opening it than on reading it. */
export const SMALL_FILE_BYTES = 16 * MIB;
/** So many small files of a day that is still open are merged. */
export const MANY_SMALL_FILES = 48;

/** Chooses what to merge in a partition; nothing where it is as it should be. */
export function chooseSources(all: readonly BucketObject[], isClosed: boolean): readonly BucketObject[] {
  const small = all.filter(({ sizeBytes }) => sizeBytes < SMALL_FILE_BYTES);
  if (!isClosed) return small.length >= MANY_SMALL_FILES ? small : [];
  if (all.length < 2) return [];
  const sum = (some: readonly BucketObject[]): number => some.reduce((bytes, { sizeBytes }) => bytes + sizeBytes, 0);
  if (sum(all) <= MAX_FILE_BYTES) return all;
  const mergeable = all.filter(({ sizeBytes }) => sizeBytes < SPLIT_FILE_BYTES / 2);
  return mergeable.length < 2 ? [] : mergeable;
}

/** What a compaction has done. */
export interface Compacted {
  readonly sources: number;
  readonly targets: number;
  readonly rows: number;
}

/**
 * Merges the small files of a partition into few, sorted, each row once. Harmless to repeat, and harmless when it is
 * broken off.
 *
 * @param all the files of the partition.
 * @param isClosed true when no more is expected in this partition.
 * @throws FailureError
 */
export async function compact(
  { files, duck, folder }: FlushParts,
  partition: Partition,
  all: readonly BucketObject[],
  isClosed: boolean,
  signal: AbortSignal,
): Promise<Compacted | undefined> {
  // One file already, and rewritten with every change.
  if (partition.table === 'dead-letters') return undefined;
  const sources = chooseSources(all, isClosed);
  if (sources.length === 0) return undefined;

  const work = await mkdtemp(join(folder, 'compact-'));
  try {
    const paths: string[] = [];
    for (const { key } of sources) {
      const path = localPath(work, key);
      if (!unwrap(await files.getFile(key, path, signal))) return undefined;
      paths.push(path);
    }
    const merged = join(work, 'merged');
    await mkdir(merged);
    const { paths: targets, rows } = await mergeSorted(duck, TABLES[partition.table], paths, merged, signal);
    await replaceFiles(
      files,
      partition,
      sources.map(({ key }) => key),
      targets,
      signal,
    );
    return { sources: sources.length, targets: targets.length, rows };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
