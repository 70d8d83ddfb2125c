import { join } from 'node:path';
import { fromParquet, openDuck, sqlText } from '../../../src/catalog/duck.ts';
import { inParallel } from '../../../src/catalog/in-parallel.ts';
import { localPath } from '../../../src/catalog/parquet.ts';
import type { BucketFiles } from '../../../src/store/bucket-files.ts';
import { mediaOf, type Sample } from './rows.ts';

export interface QueryTimes {
  readonly name: string;
  /** By a DuckDB that has not read the files before, and by the same once more. */
  readonly firstMs: number;
  readonly againMs: number;
}

const never = new AbortController().signal;
const MEMORY_BYTES = 192 * 1024 * 1024;

/** Brings the files of the catalog here and asks them what is asked of a catalog. */
export async function timeQueries(
  files: BucketFiles,
  keys: readonly string[],
  sample: Sample,
  app: string,
  folder: string,
): Promise<{ readonly found: number; readonly times: readonly QueryTimes[] }> {
  const paths = keys.map((key) => localPath(folder, key));
  await inParallel(4, keys, async (key) => {
    await files.getFile(key, localPath(folder, key), never);
  });
  const media = fromParquet(paths);
  const { row } = mediaOf(Math.floor(sample.rows / 2), sample);
  const queries = {
    'count all': `SELECT count(*) AS n FROM ${media}`,
    'media and bytes, by day and kind': `SELECT received_at::DATE AS dt, kind, count(*) AS n, sum(size_bytes) AS bytes FROM ${media} GROUP BY ALL`,
    'one media by its id': `SELECT * FROM ${media} WHERE media_id = ${sqlText(String(row.media_id))}`,
    'all media of one sender': `SELECT key FROM ${media} WHERE open_id = ${sqlText(String(row.open_id))} ORDER BY received_at`,
    'margins of one app': `SELECT quantile_cont(margin_seconds, [0.01, 0.5]) AS margins FROM ${media} WHERE app_id = ${sqlText(app)}`,
    'bytes by a label': `SELECT labels['campaign'] AS campaign, sum(size_bytes) AS bytes FROM ${media} WHERE labels IS NOT NULL GROUP BY ALL`,
  };
  const times: QueryTimes[] = [];
  let found = 0;
  for (const [name, sql] of Object.entries(queries)) {
    using duck = await openDuck({ memoryBytes: MEMORY_BYTES, threads: 1, folder: join(folder, 'spill') });
    const ask = async (): Promise<number> => {
      const startedAt = performance.now();
      const rows = await duck.rows(sql, never);
      if (name === 'count all') found = Number(rows[0]?.['n']);
      if (rows.length === 0) throw new Error(`nothing came of: ${name}`);
      return Math.round(performance.now() - startedAt);
    };
    times.push({ name, firstMs: await ask(), againMs: await ask() });
  }
  return { found, times };
}
