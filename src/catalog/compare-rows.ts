import { type Duck, DuckError, fromParquet, sqlName } from './duck.ts';
import { columnsOf, withAllColumns } from './parquet.ts';
import type { Table } from './table.ts';

/** How two sets of rows of a table differ. */
export interface RowsCompared {
  /** Rows that are only in the new ones, or otherwise there. */
  readonly added: number;
  /** Rows that are only in the old ones, or not so, or that are there twice. */
  readonly removed: number;
}

/**
 * Compares rows by their keys and all they say. Memory does not grow with how much they say.
 *
 * @param made a query that gives each key once. @param there a query.
 */
export async function compareRows(
  duck: Duck,
  table: Table,
  made: string,
  there: string,
  signal: AbortSignal,
): Promise<RowsCompared> {
  const hashed = (query: string): string =>
    `SELECT hash(key) AS named, hash(${table.columns.map(({ name }) => sqlName(name)).join(', ')}) AS said FROM (${query})`;
  const [answer] = await duck.rows(
    `WITH made AS (${hashed(made)}), there AS (${hashed(there)}),
       same AS (SELECT count(*) AS n FROM made SEMI JOIN there ON made.named = there.named AND made.said = there.said)
     SELECT (SELECT count(*) FROM made) - (SELECT n FROM same) AS added,
       (SELECT count(*) FROM there) - (SELECT n FROM same) AS removed`,
    signal,
  );
  return { added: Number(answer?.['added']), removed: Number(answer?.['removed']) };
}

/** Tells files of the catalog that can be read through, be they of an earlier version, from those that somebody has spoilt. */
export async function readableFiles(
  duck: Duck,
  table: Table,
  paths: readonly string[],
  signal: AbortSignal,
): Promise<readonly string[]> {
  const readable: string[] = [];
  const all = columnsOf(table);
  for (const path of paths) {
    try {
      const source = await withAllColumns(duck, table, fromParquet([path]), signal);
      await duck.rows(`SELECT bit_xor(hash(${all})) FROM ${source}`, signal);
      readable.push(path);
    } catch (error) {
      signal.throwIfAborted();
      // The machine is to blame, and not the file.
      if (!(error instanceof DuckError) || error.message.startsWith('Out of Memory')) throw error;
    }
  }
  return readable;
}
