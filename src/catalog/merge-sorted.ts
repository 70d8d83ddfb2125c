import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Duck, fromParquet, sqlName, sqlText } from './duck.ts';
import { columnsOf, copy, copyAsIs, ROW_GROUP_ROWS, withAllColumns } from './parquet.ts';
import type { Table } from './table.ts';

const MIB = 1024 * 1024;
/** A file is never made larger. */
export const MAX_FILE_BYTES = 256 * MIB;
/** Where there is more than a file may hold, files are made about this large. */
export const SPLIT_FILE_BYTES = 128 * MIB;

export interface Merged {
  readonly paths: readonly string[];
  readonly rows: number;
}

/**
 * Merges Parquet files of a table on this machine's disk into few, in the table's order, each row once. Memory does not
 * grow with the number of rows: they are sorted a row group at a time, each on its own, which takes a pass over the files
 * for each, and then strung together.
 *
 * @param folder an empty one, for the new files.
 */
export async function mergeSorted(
  duck: Duck,
  table: Table,
  sources: readonly string[],
  folder: string,
  signal: AbortSignal,
): Promise<Merged> {
  const all = await withAllColumns(duck, table, await onceEach(duck, table, sources, signal), signal);
  const order = sqlName(table.order);
  const bounds = await boundsOf(duck, table, sources, signal);
  const slices: Slice[] = [];
  for (const [index, from] of [undefined, ...bounds].entries()) {
    const until = bounds[index];
    const within = [
      ...(from === undefined ? [] : [`${order} >= ${from}`]),
      ...(until === undefined ? [] : [`${order} < ${until}`]),
    ];
    const path = join(folder, `slice-${index}.parquet`);
    const where = within.length === 0 ? '' : `WHERE ${within.join(' AND ')}`;
    const rows = await copy(duck, table, `SELECT * FROM ${all} ${where}`, path, signal);
    slices.push({ path, rows, sizeBytes: (await stat(path)).size });
  }
  const paths: string[] = [];
  for (const [index, group] of groupsOf(slices).entries()) {
    const path = join(folder, `${index}.parquet`);
    const inOrder = fromParquet(group.map((slice) => slice.path));
    await copyAsIs(duck, table, `SELECT ${columnsOf(table)} FROM ${inOrder}`, path, signal);
    await Promise.all(group.map((slice) => rm(slice.path)));
    paths.push(path);
  }
  return { paths, rows: slices.reduce((sum, { rows }) => sum + rows, 0) };
}

export interface Slice {
  readonly path: string;
  readonly rows: number;
  readonly sizeBytes: number;
}

/** The slices that go into each file: all of them, or about as many bytes in each. */
export function groupsOf(slices: readonly Slice[]): Slice[][] {
  const bytes = slices.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const wanted = bytes <= MAX_FILE_BYTES ? bytes : bytes / Math.ceil(bytes / SPLIT_FILE_BYTES);
  const groups: Slice[][] = [];
  let before = 0;
  for (const slice of slices) {
    const index = Math.min(Math.floor(before / Math.max(1, wanted)), Math.max(0, Math.ceil(bytes / wanted) - 1));
    groups[index] = [...(groups[index] ?? []), slice];
    before += slice.sizeBytes;
  }
  return groups.filter((group) => group.length > 0);
}

/** Where one row group ends and the next begins, in SQL and in order. */
async function boundsOf(duck: Duck, table: Table, sources: readonly string[], signal: AbortSignal): Promise<string[]> {
  const source = fromParquet(sources);
  const [answer] = await duck.rows(`SELECT count(*) AS n FROM ${source}`, signal);
  const count = Math.ceil(Number(answer?.['n'] ?? 0) / ROW_GROUP_ROWS);
  if (count < 2) return [];
  const shares = Array.from({ length: count - 1 }, (_, index) => ((index + 1) / count).toFixed(6));
  const micros = `epoch_us(${sqlName(table.order)})`;
  const rows = await duck.rows(
    `SELECT DISTINCT unnest(approx_quantile(${micros}, [${shares.join(', ')}])) AS bound FROM ${source} ORDER BY bound`,
    signal,
  );
  return rows.map(({ bound }) => `make_timestamptz(${Number(bound)})`);
}

/** What to read so that each row comes once. Finding the others takes time, so it is done only where there are some. */
async function onceEach(duck: Duck, table: Table, sources: readonly string[], signal: AbortSignal): Promise<string> {
  const source = fromParquet(sources);
  const identity = table.identity.map(sqlName).join(', ');
  const [answer] = await duck.rows(
    `SELECT count(*) AS n, count(DISTINCT hash(${identity})) AS different FROM ${source}`,
    signal,
  );
  if (answer?.['n'] === answer?.['different']) return source;
  const placed = `read_parquet([${sources.map(sqlText).join(', ')}], union_by_name = true, hive_partitioning = false, filename = true, file_row_number = true)`;
  const twice = `SELECT hash(${identity}) AS twice FROM ${source} GROUP BY ALL HAVING count(*) > 1`;
  const latest = table.name === 'media' ? 'archived_at DESC' : sqlName(table.order);
  await duck.run(
    `CREATE OR REPLACE TEMP TABLE surplus AS SELECT filename, file_row_number FROM ${placed}
      WHERE hash(${identity}) IN (${twice})
      QUALIFY row_number() OVER (PARTITION BY ${identity} ORDER BY ${latest}, filename, file_row_number) > 1`,
    signal,
  );
  return `(SELECT * FROM ${placed} ANTI JOIN surplus USING (filename, file_row_number))`;
}
