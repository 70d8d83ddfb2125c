import { open } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { VERSION } from '../version.ts';
import { type Duck, fromNdjson, fromParquet, sqlName, sqlText } from './duck.ts';
import { type AnyRow, type Column, schemaOf, type Table } from './table.ts';

/** Readers skip row groups by their statistics, and DuckDB holds one in memory while it writes: half its own default. */
export const ROW_GROUP_ROWS = 61_440;

/** Marks rows that must be looked for among those that are there already. */
export const SUSPECT_NAME = '_may_be_there';
const SUSPECT: Column = { name: SUSPECT_NAME, type: 'INTEGER', nullable: false, meaning: '' };

export interface NewRow {
  readonly row: AnyRow;
  readonly mayBeThere: boolean;
}

/**
 * Writes rows to a Parquet file and returns how many it holds.
 *
 * @param others files that may hold some of the rows that `mayBeThere`, which are left out then.
 */
export async function writeParquet(
  duck: Duck,
  table: Table,
  rows: readonly NewRow[],
  others: readonly string[],
  path: string,
  signal: AbortSignal,
): Promise<number> {
  const lines = `${path}.ndjson`;
  await writeLines(lines, rows, lineOf);
  return linesToParquet(duck, table, lines, others, path, signal);
}

/** A row as a line of JSON. */
export function lineOf({ row, mayBeThere }: NewRow): string {
  return `${JSON.stringify({ ...row, [SUSPECT.name]: mayBeThere ? 1 : 0 })}\n`;
}

/** As `writeParquet`, for rows that lie on disk, each as `lineOf` makes it. */
export async function linesToParquet(
  duck: Duck,
  table: Table,
  lines: string,
  others: readonly string[],
  path: string,
  signal: AbortSignal,
): Promise<number> {
  const source = fromNdjson(lines, [...table.columns, SUSPECT]);
  const known =
    others.length === 0
      ? ''
      : `WHERE NOT (${SUSPECT.name} = 1 AND EXISTS (SELECT 1 FROM ${fromParquet(others)} AS there WHERE ${table.identity
          .map((name) => `there.${sqlName(name)} IS NOT DISTINCT FROM new.${sqlName(name)}`)
          .join(' AND ')}))`;
  return copy(duck, table, `SELECT ${columnsOf(table)} FROM ${source} AS new ${known}`, path, signal);
}

/**
 * Writes what a query gives to a Parquet file of a table, in the table's order, and returns how many rows it holds. Takes
 * memory for all of it: see `mergeSorted` for more.
 */
export async function copy(
  duck: Duck,
  table: Table,
  query: string,
  path: string,
  signal: AbortSignal,
): Promise<number> {
  return copyAsIs(
    duck,
    table,
    `SELECT ${columnsOf(table)} FROM (${query}) ORDER BY ${sqlName(table.order)}`,
    path,
    signal,
  );
}

/** Writes what a query gives to a Parquet file of a table, in the order in which it comes. A row group is in memory. */
export async function copyAsIs(
  duck: Duck,
  table: Table,
  query: string,
  path: string,
  signal: AbortSignal,
): Promise<number> {
  const metadata = `{${sqlText('weixin-media.schema')}: ${sqlText(schemaOf(table))}, ${sqlText('weixin-media.version')}: ${sqlText(VERSION)}}`;
  const statement = `COPY (${query}) TO ${sqlText(path)}
    (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE ${ROW_GROUP_ROWS}, KV_METADATA ${metadata})`;
  const [answer] = await duck.rows(statement, signal);
  return Number(answer?.['Count'] ?? 0);
}

/**
 * What to read from so that each column of a table is there: one that may be null, and that files of earlier versions all
 * lack, is null.
 *
 * @param source what the files are read from, in SQL.
 */
export async function withAllColumns(duck: Duck, table: Table, source: string, signal: AbortSignal): Promise<string> {
  const there = new Set((await duck.rows(`DESCRIBE FROM ${source}`, signal)).map((row) => row['column_name']));
  const lacking = table.columns.filter(({ name, nullable }) => nullable && !there.has(name));
  if (lacking.length === 0) return source;
  return `(SELECT *, ${lacking.map(({ name, type }) => `NULL::${type} AS ${sqlName(name)}`).join(', ')} FROM ${source})`;
}

export function columnsOf(table: Table): string {
  return table.columns.map(({ name }) => sqlName(name)).join(', ');
}

/** Lines are written so many at a time: all at once they would be in memory thrice. */
const LINES_AT_ONCE = 1_000;

async function writeLines<T>(path: string, rows: Iterable<T>, toLine: (row: T) => string): Promise<void> {
  await using file = await open(path, 'w');
  let lines: string[] = [];
  for (const row of rows) {
    if (lines.push(toLine(row)) < LINES_AT_ONCE) continue;
    await file.appendFile(lines.join(''));
    lines = [];
  }
  await file.appendFile(lines.join(''));
}

/** Writes what a query gives to a file with one JSON object a line. */
export async function copyLines(duck: Duck, query: string, path: string, signal: AbortSignal): Promise<void> {
  await duck.run(`COPY (${query}) TO ${sqlText(path)} (FORMAT json)`, signal);
}

export function writeNdjson(path: string, rows: Iterable<AnyRow>): Promise<void> {
  return writeLines(path, rows, (row) => `${JSON.stringify(row)}\n`);
}

/** A path in a folder, for a key of the bucket. */
export function localPath(folder: string, key: string): string {
  return join(folder, key.replaceAll('/', '__'));
}

/** The key that a path was made for. */
export function keyOfLocalPath(folder: string, path: string): string {
  return relative(folder, path).replaceAll('__', '/');
}
