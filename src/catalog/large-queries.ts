import { type Duck, sqlText } from './duck.ts';
import type { AnyRow } from './table.ts';

/**
 * Rows in a row group of files that are on their way. A reader holds a whole one, which a join that has filled the memory
 * leaves no room for: with DuckDB's own 122,880 a million keys can't be joined in 192 MiB.
 */
const ROW_GROUP_ROWS = 20_480;

/** Writes what a query gives to a Parquet file for further queries. */
export function toParquet(duck: Duck, query: string, path: string, signal: AbortSignal): Promise<void> {
  return duck.run(`COPY (${query}) TO ${sqlText(path)} (FORMAT parquet, ROW_GROUP_SIZE ${ROW_GROUP_ROWS})`, signal);
}

/**
 * Lets DuckDB join and sort by way of its folder from the start, while `work` goes on. By itself it begins with that only
 * when the memory is full, and then often has not enough left to begin.
 */
export async function outOfMemory<T>(duck: Duck, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  await duck.run('SET debug_force_external = true', signal);
  try {
    return await work();
  } finally {
    await duck.run('RESET debug_force_external', new AbortController().signal);
  }
}

/**
 * Returns what to read rows from so that each key comes once. Choosing one of each takes memory and time, so it is done
 * only where a key is there twice.
 *
 * @param source a table, in SQL. @param chosen a query that chooses.
 */
export async function onceEach(duck: Duck, source: string, chosen: string, signal: AbortSignal): Promise<string> {
  const [answer] = await duck.rows(
    `SELECT count(*) AS n, count(DISTINCT hash(key)) AS different FROM ${source}`,
    signal,
  );
  return answer?.['n'] === answer?.['different'] ? source : `(${chosen})`;
}

/** Beyond so many DuckDB sorts everything to find the first of them. */
const PAGE_ROWS = 5_000;

/**
 * The rows of a Parquet file behind a key, in key order, a page at a time. Each page reads through the file: a sort of it
 * all would need more memory than DuckDB may have.
 */
export async function* pagesByKey(
  duck: Duck,
  path: string,
  after: string,
  signal: AbortSignal,
): AsyncIterable<readonly AnyRow[]> {
  for (let last = after; ; ) {
    const query = `SELECT * FROM read_parquet(${sqlText(path)}) WHERE key > ${sqlText(last)} ORDER BY key LIMIT ${PAGE_ROWS}`;
    const page = await duck.rows(query, signal);
    if (page.length > 0) yield page;
    if (page.length < PAGE_ROWS) return;
    last = String(page.at(-1)?.['key']);
  }
}
