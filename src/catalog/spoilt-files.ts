import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { partitionOfKey } from './catalog-keys.ts';
import { readableFiles } from './compare-rows.ts';
import { DuckError } from './duck.ts';
import type { FlushParts } from './flush.ts';
import { localPath } from './parquet.ts';
import { TABLES } from './tables.ts';
import { unwrap } from './unwrap.ts';

/**
 * Finds the files that are to blame for an error of DuckDB's: those of the catalog that nobody can read.
 *
 * @returns their keys, one at least. @throws what went wrong, when none of them is to blame; FailureError
 */
export async function spoiltFiles(
  { files, duck, folder }: FlushParts,
  keys: Iterable<string> | AsyncIterable<string>,
  error: unknown,
  signal: AbortSignal,
): Promise<string[]> {
  if (!(error instanceof DuckError)) throw error;
  const work = await mkdtemp(join(folder, 'spoilt-'));
  const spoilt: string[] = [];
  try {
    for await (const key of keys) {
      const partition = partitionOfKey(key);
      const path = localPath(work, key);
      if (partition === undefined || !unwrap(await files.getFile(key, path, signal))) continue;
      const [readable] = await readableFiles(duck, TABLES[partition.table], [path], signal);
      if (readable === undefined) spoilt.push(key);
      await rm(path);
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  if (spoilt.length === 0) throw error;
  return spoilt;
}
