import { type Duck, DuckError, type DuckLimits, openDuck, sqlList, sqlName, sqlText } from './duck.ts';
import { type AnyRow, TABLE_NAMES, type Table, type TableName } from './table.ts';
import { TABLES } from './tables.ts';

/** Files of tables on this machine's disk, in folders named as in the bucket: `…/dt=2026-06-15/app=wx…/….parquet`. */
export type TableFiles = Readonly<Partial<Record<TableName, readonly string[]>>>;

/** A query can't be answered. The message is DuckDB's where it has one. */
export class QueryError extends Error {
  override readonly name = 'QueryError';
  /** False when it is not for the query: memory or disk did not do. */
  readonly isMistake: boolean;

  constructor(message: string, isMistake = true) {
    super(message);
    this.isMistake = isMistake;
  }
}

/**
 * Finds out which tables a query reads: those without which its names can't be bound. The parser's own list
 * (`getTableNames`) lacks those of a JOIN … USING.
 *
 * @throws QueryError for what is wrong, or no query.
 */
export async function tablesIn(sql: string, limits: DuckLimits, signal: AbortSignal): Promise<TableName[]> {
  using duck = await openDuck(limits);
  for (const table of TABLE_NAMES) await duck.run(creationOf(table), signal);
  await duck.lock([], signal);
  await inspected(duck, sql, signal);
  const read: TableName[] = [];
  for (const table of TABLE_NAMES) {
    await duck.run(`DROP TABLE ${viewOf(table)}`, signal);
    if (!(await isBound(duck, sql, signal))) read.push(table);
    await duck.run(creationOf(table), signal);
  }
  return read;
}

export interface QueryResult {
  /** Each by another name. */
  readonly columns: readonly string[];
  /** A loop over them throws a QueryError when they end before they are whole. */
  readonly rows: AsyncIterable<readonly AnyRow[]>;
}

export interface CatalogQueries extends Disposable {
  /**
   * Runs one SELECT. Rows come as JSON has them (`jsonValue`), some 2,000 at a time, in the query's order.
   *
   * @throws QueryError for what DuckDB refuses, and the signal's reason when it aborts.
   */
  run(sql: string, signal: AbortSignal): Promise<QueryResult>;
}

/**
 * Opens tables for queries: as `media`, `dead_letters`, `accepted` and `derived`, with `dt` and `app` behind their own
 * columns. A query reads these files and nothing else of this machine, writes nothing and loads nothing.
 *
 * A column that no file has is null, so files of earlier versions will do. A table without files has no rows; one that is
 * not given does not exist.
 *
 * @param app only rows of this account.
 * @throws DuckError when a file is none of ours.
 */
export async function openQueries(
  files: TableFiles,
  limits: DuckLimits,
  signal: AbortSignal,
  app?: string,
): Promise<CatalogQueries> {
  const duck = await openDuck(limits);
  try {
    for (const name of TABLE_NAMES) {
      const paths = files[name];
      if (paths === undefined) continue;
      const query = paths.length === 0 ? emptyOf(TABLES[name]) : await queryOf(duck, TABLES[name], paths, signal);
      const filter = app === undefined ? '' : ` WHERE app = ${sqlText(app)}`;
      await duck.run(`CREATE VIEW ${viewOf(name)} AS FROM (${query})${filter}`, signal);
    }
    await duck.lock(Object.values(files).flat(), signal);
  } catch (error) {
    duck[Symbol.dispose]();
    throw error;
  }
  return {
    run: async (sql, stop) => {
      const columns = await inspected(duck, sql, stop);
      return { columns, rows: rowsOf(sql, stop) };
    },
    [Symbol.dispose]: () => duck[Symbol.dispose](),
  };

  async function* rowsOf(sql: string, stop: AbortSignal): AsyncIterable<readonly AnyRow[]> {
    try {
      yield* duck.stream(sql, stop);
    } catch (error) {
      throw asQueryError(error);
    }
  }
}

/** What a table is called in SQL. */
function viewOf(table: TableName): string {
  return table.replaceAll('-', '_');
}

/** The columns of what a query gives. @throws QueryError for what is no single query. */
async function inspected(duck: Duck, sql: string, signal: AbortSignal): Promise<readonly string[]> {
  try {
    const { isQuery, parameters, columns } = await duck.inspect(sql, signal);
    if (!isQuery) throw new QueryError('one SELECT is expected, and nothing else');
    if (parameters > 0) throw new QueryError('the query leaves values open ($1, ?): write them into it');
    return columns;
  } catch (error) {
    throw asQueryError(error);
  }
}

async function isBound(duck: Duck, sql: string, signal: AbortSignal): Promise<boolean> {
  try {
    await duck.inspect(sql, signal);
    return true;
  } catch (error) {
    if (error instanceof DuckError) return false;
    throw error;
  }
}

/** The kinds of error that the machine is to blame for, as DuckDB's messages begin. */
const OF_THE_MACHINE = /^(Out of Memory|IO|INTERNAL|FATAL) Error/i;

function asQueryError(error: unknown): unknown {
  return error instanceof DuckError ? new QueryError(error.message, !OF_THE_MACHINE.test(error.message)) : error;
}

function creationOf(table: TableName): string {
  return `CREATE TABLE ${viewOf(table)} AS ${emptyOf(TABLES[table])}`;
}

function emptyOf({ columns }: Table): string {
  const none = columns.map(({ name, type }) => `NULL::${type} AS ${sqlName(name)}`);
  return `SELECT ${none.join(', ')}, NULL::DATE AS dt, NULL::VARCHAR AS app WHERE false`;
}

/** `dt` and `app` stand in the path: they are not in the files. */
async function queryOf(duck: Duck, table: Table, paths: readonly string[], signal: AbortSignal): Promise<string> {
  const hasApp = table.name !== 'accepted';
  const types = `{dt: DATE${hasApp ? ', app: VARCHAR' : ''}}`;
  const source = `read_parquet(${sqlList(paths)}, union_by_name = true, hive_partitioning = true, hive_types = ${types})`;
  const there = new Set((await duck.rows(`DESCRIBE FROM ${source}`, signal)).map((row) => row['column_name']));
  const columns = table.columns.map(({ name, type }) =>
    there.has(name) ? sqlName(name) : `NULL::${type} AS ${sqlName(name)}`,
  );
  return `SELECT ${columns.join(', ')}, dt, ${hasApp ? 'app' : 'app_id AS app'} FROM ${source}`;
}
