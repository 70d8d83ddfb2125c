import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { tablePrefix } from '../catalog/catalog-keys.ts';
import { downloadRows } from '../catalog/manifest-rows.ts';
import { localFiles, openQueries, QueryError, tablesIn } from '../catalog/query.ts';
import type { AnyRow, TableName } from '../catalog/table.ts';
import type { Config } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { createBucketFiles } from '../store/bucket-files.ts';
import { dayOf } from '../store/object-keys.ts';
import { createS3Client } from '../store/s3-client.ts';
import { iso } from '../time.ts';
import { openWorkFolder } from './catalog-tools.ts';
import { CommandError, EXIT } from './command-error.ts';
import { type Output, table } from './output.ts';

export interface QueryOptions {
  /** A folder with a copy of the bucket, in place of the bucket. */
  readonly local?: string;
  /** Unix times in milliseconds: only the files of these days are fetched. */
  readonly since?: number;
  readonly until?: number;
  readonly app?: string;
}

/** For people; with --json all rows come. */
const MAX_SHOWN = 1_000;
const CONNECTIONS = 16;

/** `query`: runs SQL over the catalog, on DuckDB in this process. Wrong SQL is wrong usage: 2. */
export async function queryCatalog(
  config: Config,
  sql: string,
  options: QueryOptions,
  output: Output,
): Promise<number> {
  const stop = stopOnSignals();
  const { folder, remove } = await openWorkFolder(config);
  try {
    const files = await filesFor(config, sql, options, folder, stop.signal);
    const { memoryBytes } = config.catalog;
    using queries = await openQueries(files, { memoryBytes, threads: 2, folder: join(folder, 'spill') });
    const { columns, rows } = await queries.run(sql, stop.signal);
    if (output.json) for await (const page of rows) for (const row of page) output.result(row, () => '');
    else await showTable(columns, rows, output);
    return EXIT.done;
  } catch (error) {
    if (stop.signal.aborted) return EXIT.failed;
    if (error instanceof QueryError) throw new CommandError(error.message, EXIT.usage);
    throw error;
  } finally {
    stop.release();
    await remove();
  }
}

async function showTable(
  columns: readonly string[],
  rows: AsyncIterable<readonly AnyRow[]>,
  output: Output,
): Promise<void> {
  const shown: AnyRow[] = [];
  let isCut = false;
  for await (const page of rows) {
    for (const row of page) {
      if (shown.length < MAX_SHOWN) shown.push(row);
      else isCut = true;
    }
    if (isCut) break;
  }
  const cells = shown.map((row) => columns.map((name) => cell(row[name])));
  output.result(shown, () => table(columns, cells));
  if (isCut) output.note(`only the first ${MAX_SHOWN} rows: --json gives all`);
}

function cell(value: unknown): string | number {
  if (value === null || value === undefined) return '-';
  if (typeof value === 'number' || typeof value === 'string') return value;
  return JSON.stringify(value);
}

/** The files of the tables that the query names. */
async function filesFor(
  config: Config,
  sql: string,
  { local, since, until, app }: QueryOptions,
  folder: string,
  signal: AbortSignal,
): Promise<Partial<Record<TableName, readonly string[]>>> {
  const files: Partial<Record<TableName, readonly string[]>> = {};
  const wanted = tablesIn(sql);
  if (local !== undefined) {
    for (const name of wanted) files[name] = await localFiles(local, name);
    return files;
  }
  if (config.store === undefined) throw new CommandError('set ARCHIVE_BUCKET, or name a copy with --local', EXIT.usage);
  const { bucket, partSizeBytes } = config.store;
  const client = createS3Client(config.store, CONNECTIONS);
  const [from, to] = [since, until].map((time) => (time === undefined ? undefined : dayOf(iso(time))));
  try {
    const bucketFiles = createBucketFiles({ client, bucket, partSizeBytes });
    for (const name of wanted) {
      const ofTable = join(folder, name);
      await mkdir(ofTable);
      files[name] = await downloadRows(
        bucketFiles,
        tablePrefix(name),
        ofTable,
        (partition) =>
          (from === undefined || partition.dt >= from) &&
          (to === undefined || partition.dt <= to) &&
          (app === undefined || partition.app === undefined || partition.app === app),
        signal,
      );
    }
    return files;
  } finally {
    client.destroy();
  }
}
