import { rm } from 'node:fs/promises';
import { FailureError, failure } from '../failure.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import type { Partition } from './catalog-keys.ts';
import { unwrap } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import { localPath } from './parquet.ts';
import { readableFiles } from './readable-files.ts';

const READS_AT_ONCE = 8;
/** Files are merged while they are read; that they always are is not to be expected. */
const TRIES = 5;

/**
 * Downloads the files of a table below a prefix to disk: each row once, also while files are being merged. Returns their
 * paths.
 *
 * @param isWanted chooses partitions.
 * @throws FailureError
 */
export async function downloadRows(
  files: BucketFiles,
  prefix: string,
  folder: string,
  isWanted: (partition: Partition) => boolean,
  signal: AbortSignal,
): Promise<string[]> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const objects = await readableFiles(files, prefix, isWanted, signal);
    const paths: string[] = [];
    let gone = false;
    await inParallel(READS_AT_ONCE, objects, async ({ key }) => {
      const path = localPath(folder, key);
      if (unwrap(await files.getFile(key, path, signal))) paths.push(path);
      else gone = true;
    });
    if (!gone) return paths.toSorted();
    await Promise.all(paths.map((path) => rm(path, { force: true })));
  }
  throw new FailureError(failure('store-busy', { detail: `the files below ${prefix} change all the time` }));
}
