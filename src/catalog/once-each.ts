import type { Duck } from './duck.ts';

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
