import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { copyCatalog } from '../catalog/local-copy.ts';
import { localFiles } from '../catalog/local-files.ts';
import { openQueries, QueryError, type TableFiles, tablesIn } from '../catalog/query.ts';
import type { Scope } from '../catalog/scope.ts';
import type { AnyRow } from '../catalog/table.ts';
import type { Config } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { createBucketFiles } from '../store/bucket-files.ts';
import { dayOf } from '../store/object-keys.ts';
import { createS3Client } from '../store/s3-client.ts';
import { iso } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';
import { type Output, table } from './output.ts';
import { openWorkFolder } from './work-folder.ts';

export interface QueryOptions {
  /** A folder for the files that are fetched, to be kept. */
  readonly copy?: string;
  /** A folder with a copy of the bucket, in place of the bucket. */
  readonly local?: string;
  /** Unix times in milliseconds; their days count, in UTC. */
  readonly since?: number;
  readonly until?: number;
  readonly app?: string;
}

/** For people; with --json all rows come. */
const MAX_SHOWN = 1_000;
/** For people; longer values are cut. */
const MAX_CELL = 300;
const MAX_THREADS = 4;
const CONNECTIONS = 16;

/**
 * `query`: runs SQL over the catalog, on DuckDB in this process. The bucket is only read. Wrong SQL is wrong usage: 2.
 * What an answer has given before it failed stays on stdout.
 */
export async function queryCatalog(
  config: Config,
  sql: string,
  options: QueryOptions,
  output: Output,
): Promise<number> {
  checkOptions(config, options);
  const stop = stopOnSignals();
  await using work = await openWorkFolder(config.catalog.folder, 'query');
  try {
    await answer(config, sql, options, work.folder, output, stop.signal);
    return EXIT.done;
  } catch (error) {
    if (stop.signal.aborted) return EXIT.failed;
    if (error instanceof QueryError) throw new CommandError(error.message, error.isMistake ? EXIT.usage : EXIT.failed);
    throw error;
  } finally {
    stop.release();
  }
}

function checkOptions({ store }: Config, { copy, local }: QueryOptions): void {
  if (copy !== undefined && local !== undefined) throw new CommandError('--copy or --local, not both', EXIT.usage);
  if (store === undefined && local === undefined)
    throw new CommandError('set ARCHIVE_BUCKET, or name a copy with --local', EXIT.usage);
}

async function answer(
  config: Config,
  sql: string,
  options: QueryOptions,
  folder: string,
  output: Output,
  signal: AbortSignal,
): Promise<void> {
  const { since, until, app, copy = folder, local } = options;
  const { memoryBytes } = config.catalog;
  const threads = Math.min(MAX_THREADS, availableParallelism());
  const limits = { memoryBytes, threads, folder: join(folder, 'spill') };
  const scope: Scope = {
    tables: await tablesIn(sql, limits, signal),
    ...(since === undefined ? {} : { since: dayOf(iso(since)) }),
    ...(until === undefined ? {} : { until: dayOf(iso(until)) }),
    ...(app === undefined ? {} : { app }),
  };
  const files =
    local === undefined ? await fetched(config, scope, resolve(copy), output, signal) : await found(local, scope);
  using queries = await openQueries(files, limits, signal, app);
  const { columns, rows } = await queries.run(sql, signal);
  if (output.json) await showAll(rows, output, signal);
  else await showTable(columns, rows, output);
}

async function showAll(rows: AsyncIterable<readonly AnyRow[]>, output: Output, signal: AbortSignal): Promise<void> {
  for await (const page of rows) {
    for (const row of page) output.result(row, () => '');
    await output.taken(signal);
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
    isCut = shown.length + page.length > MAX_SHOWN;
    shown.push(...page.slice(0, MAX_SHOWN - shown.length));
    if (isCut) break;
  }
  const cells = shown.map((row) => columns.map((name) => cell(row[name])));
  output.result(shown, () => table(columns, cells));
  if (isCut) output.note(`only the first ${MAX_SHOWN} rows: --json gives all`);
}

function cell(value: unknown): string | number {
  if (value === null || value === undefined) return '-';
  if (typeof value === 'number') return value;
  const text = (typeof value === 'string' ? value : JSON.stringify(value)).replaceAll(/\s+/g, ' ');
  return text.length <= MAX_CELL ? text : `${text.slice(0, MAX_CELL)}…`;
}

/** Brings the files of the tables that the query names. */
async function fetched(
  { store }: Config,
  scope: Scope,
  folder: string,
  output: Output,
  signal: AbortSignal,
): Promise<TableFiles> {
  if (store === undefined || scope.tables.length === 0) return {};
  const client = createS3Client(store, CONNECTIONS);
  using progress = output.progress('files', 0);
  let shown = 0;
  try {
    const files = createBucketFiles({ client, bucket: store.bucket, partSizeBytes: store.partSizeBytes });
    const copied = await copyCatalog(files, scope, folder, signal, (done, total) => {
      progress.total(total);
      progress.advance(Math.max(0, done - shown));
      shown = done;
    });
    return copied.files;
  } finally {
    client.destroy();
  }
}

async function found(local: string, scope: Scope): Promise<TableFiles> {
  const files = await localFiles(resolve(local), scope);
  if (files === undefined)
    throw new CommandError(`${local} holds no catalog: catalog/media/dt=… is expected in it`, EXIT.usage);
  return files;
}
