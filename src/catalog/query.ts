import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type DuckDBConnection,
  DuckDBInstance,
  type DuckDBType,
  DuckDBTypeId,
  type JS,
  StatementType,
} from '@duckdb/node-api';
import { type DuckLimits, fromParquet, sqlList, sqlName, sqlText } from './duck.ts';
import { type AnyRow, TABLE_NAMES, type TableName } from './table.ts';
import { TABLES } from './tables.ts';

/** What the SQL of a query may name. */
export const VIEWS = {
  media: 'media',
  dead_letters: 'dead-letters',
  accepted: 'accepted',
  derived: 'derived',
} as const satisfies Record<string, TableName>;

/** The query itself is wrong; the message is DuckDB's. */
export class QueryError extends Error {
  override readonly name = 'QueryError';
}

/** The tables that a query may need: those whose view its text names, wherever. */
export function tablesIn(sql: string): readonly TableName[] {
  return Object.entries(VIEWS).flatMap(([view, table]) => (new RegExp(`\\b${view}\\b`, 'i').test(sql) ? [table] : []));
}

/** The Parquet files of a table below a folder that holds a copy of the bucket, or of its `catalog/`. */
export async function localFiles(folder: string, table: TableName): Promise<string[]> {
  for (const parent of [join(folder, 'catalog', table), join(folder, table)]) {
    const found = await readdir(parent, { recursive: true }).catch(() => undefined);
    if (found !== undefined)
      return found
        .filter((name) => name.endsWith('.parquet'))
        .map((name) => join(parent, name))
        .toSorted();
  }
  return [];
}

export interface QueryResult {
  readonly columns: readonly string[];
  readonly rows: AsyncIterable<readonly AnyRow[]>;
}

export interface CatalogQueries extends Disposable {
  /**
   * Runs one SELECT (or EXPLAIN). Rows come as JSON has them: instants as ISO-8601 in UTC, days as `YYYY-MM-DD`, maps as
   * objects, whole numbers beyond 2^53 as text.
   *
   * @throws QueryError for what DuckDB refuses, and the signal's reason when it aborts.
   */
  run(sql: string, signal: AbortSignal): Promise<QueryResult>;
}

/**
 * Opens the catalog for queries, over files on this machine's disk: `media`, `dead_letters`, `accepted` and `derived`,
 * each with the partition columns `dt` and `app`. A query reads these files and nothing else of this machine, writes
 * nothing and loads nothing.
 */
export async function openQueries(
  files: Readonly<Partial<Record<TableName, readonly string[]>>>,
  { memoryBytes, threads, folder }: DuckLimits,
): Promise<CatalogQueries> {
  const instance = await DuckDBInstance.create(':memory:', {
    memory_limit: `${Math.floor(memoryBytes / 1024)}KiB`,
    threads: String(threads),
    temp_directory: folder,
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
  });
  const connection = await instance.connect();
  await connection.run("SET TimeZone = 'UTC'");
  for (const [view, name] of Object.entries(VIEWS))
    await connection.run(`CREATE VIEW ${sqlName(view)} AS ${viewOf(name, files[name] ?? [])}`);
  const all = TABLE_NAMES.flatMap((name) => files[name] ?? []);
  await connection.run(`SET allowed_paths = ${sqlList(all)}`);
  await connection.run('SET enable_external_access = false');
  await connection.run('SET lock_configuration = true');

  return {
    run: async (sql, signal) => {
      signal.throwIfAborted();
      const interrupt = (): void => connection.interrupt();
      signal.addEventListener('abort', interrupt, { once: true });
      try {
        await mustBeQuery(connection, sql);
        const result = await connection.stream(sql);
        const columns = result.columnNames();
        const types = result.columnTypes();
        async function* rows(): AsyncIterable<readonly AnyRow[]> {
          try {
            for await (const page of result.yieldRowObjectJs()) {
              signal.throwIfAborted();
              yield page.map((row) => rowOf(row, columns, types));
            }
            // What was interrupted may end as if it were whole.
            signal.throwIfAborted();
          } catch (error) {
            signal.throwIfAborted();
            throw asQueryError(error);
          } finally {
            signal.removeEventListener('abort', interrupt);
          }
        }
        return { columns, rows: rows() };
      } catch (error) {
        signal.removeEventListener('abort', interrupt);
        signal.throwIfAborted();
        throw asQueryError(error);
      }
    },
    [Symbol.dispose]: () => {
      connection.closeSync();
      instance.closeSync();
    },
  };
}

async function mustBeQuery(connection: DuckDBConnection, sql: string): Promise<void> {
  if (sql.trim() === '') throw new QueryError('an SQL query is expected, such as: select count(*) from media');
  const statements = await connection.extractStatements(sql);
  if (statements.count !== 1) throw new QueryError('one statement is expected');
  const { statementType } = await statements.prepare(0);
  if (statementType !== StatementType.SELECT && statementType !== StatementType.EXPLAIN)
    throw new QueryError(`only queries are run, and this is ${StatementType[statementType] ?? 'something else'}`);
}

/** `dt` and `app` stand in the path: they are not in the files. */
function viewOf(name: TableName, paths: readonly string[]): string {
  const { columns } = TABLES[name];
  const app = name === 'accepted' ? 'app_id' : "regexp_extract(filename, 'app=([A-Za-z0-9_-]+?)(__|[/\\\\])', 1)";
  if (paths.length === 0) {
    const none = columns.map((column) => `CAST(NULL AS ${column.type}) AS ${sqlName(column.name)}`);
    return `SELECT ${none.join(', ')}, CAST(NULL AS DATE) AS dt, CAST(NULL AS VARCHAR) AS app WHERE false`;
  }
  const listed = columns.map((column) => sqlName(column.name)).join(', ');
  const source = fromParquet(paths).replace(/\)$/, `, filename = ${sqlText('filename')})`);
  return `SELECT ${listed}, CAST(regexp_extract(filename, 'dt=([0-9-]{10})', 1) AS DATE) AS dt, ${app} AS app FROM ${source}`;
}

function asQueryError(error: unknown): unknown {
  if (error instanceof QueryError || !(error instanceof Error)) return error;
  return new QueryError(error.message.replace(/^Failed to extract statements: /, ''));
}

function rowOf(row: Readonly<Record<string, JS>>, columns: readonly string[], types: readonly DuckDBType[]): AnyRow {
  return Object.fromEntries(columns.map((name, index) => [name, jsonOf(row[name], types[index]?.typeId)]));
}

function jsonOf(value: unknown, type?: DuckDBTypeId): unknown {
  if (value === null || value === undefined) return null;
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value.toString();
  if (value instanceof Date) return type === DuckDBTypeId.DATE ? value.toISOString().slice(0, 10) : value.toISOString();
  if (value instanceof Uint8Array) return Buffer.from(value).toString('hex');
  if (type === DuckDBTypeId.MAP && Array.isArray(value)) {
    return Object.fromEntries(value.map(({ key, value: inner }) => [String(key), jsonOf(inner)]));
  }
  if (Array.isArray(value)) return value.map((inner) => jsonOf(inner));
  if (typeof value === 'object')
    return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, jsonOf(inner)]));
  return value;
}
