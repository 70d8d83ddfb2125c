import { type DuckDBConnection, DuckDBInstance } from '@duckdb/node-api';
import type { AnyRow, Column } from './table.ts';

/** What DuckDB may use. */
export interface DuckLimits {
  /** Beyond it DuckDB writes to `folder`, or gives up. What it holds beside its buffers comes on top: some 100 MiB. */
  readonly memoryBytes: number;
  readonly threads: number;
  /** For what does not fit into memory. */
  readonly folder: string;
}

/**
 * DuckDB in this process, for Parquet: it writes, merges and queries files on this machine's disk.
 *
 * It loads no extension from anywhere, and a statement runs after the one before has ended.
 */
export interface Duck extends Disposable {
  /** Runs statements that give nothing back. An aborted signal interrupts them and throws its reason. */
  run(sql: string, signal: AbortSignal): Promise<void>;
  /** Runs a query whose whole answer fits into memory. Instants come as ISO-8601, BIGINTs as numbers. */
  rows(sql: string, signal: AbortSignal): Promise<AnyRow[]>;
  /** Runs a query and gives its rows as they come, some 2,000 at a time. Nothing else may run until they have ended. */
  stream(sql: string, signal: AbortSignal): AsyncIterable<readonly AnyRow[]>;
}

export async function openDuck({ memoryBytes, threads, folder }: DuckLimits): Promise<Duck> {
  const instance = await DuckDBInstance.create(':memory:', {
    memory_limit: `${Math.floor(memoryBytes / 1024)}KiB`,
    threads: String(threads),
    temp_directory: folder,
    // Statements run on whichever thread is free, and each would keep what it has once needed: a third of the memory.
    allocator_flush_threshold: '1MiB',
    allocator_bulk_deallocation_flush_threshold: '1MiB',
    autoinstall_known_extensions: 'false',
    autoload_known_extensions: 'false',
  });
  const connection = await instance.connect();
  await connection.run("SET TimeZone = 'UTC'");
  let last: Promise<unknown> = Promise.resolve();

  /** One after the other. */
  function next<T>(work: () => Promise<T>): Promise<T> {
    const turn = last.then(work, work);
    last = turn.catch(() => undefined);
    return turn;
  }

  return {
    run: (sql, signal) =>
      next(() => interruptible(connection, signal, () => connection.run(sql)).then(() => undefined)),
    rows: (sql, signal) =>
      next(async () => {
        const reader = await interruptible(connection, signal, () => connection.runAndReadAll(sql));
        return reader.getRowObjectsJS().map(plainRow);
      }),
    async *stream(sql, signal) {
      const { promise: ended, resolve } = Promise.withResolvers<void>();
      const result = await new Promise<Awaited<ReturnType<DuckDBConnection['stream']>>>((started, failed) => {
        void next(async () => {
          try {
            started(await interruptible(connection, signal, () => connection.stream(sql)));
            await ended;
          } catch (error) {
            failed(error as Error);
          }
        });
      });
      try {
        for await (const rows of result.yieldRowObjectJs()) {
          signal.throwIfAborted();
          yield rows.map(plainRow);
        }
        // What was interrupted may end as if it were whole.
        signal.throwIfAborted();
      } finally {
        resolve();
      }
    },
    [Symbol.dispose]: () => {
      connection.closeSync();
      instance.closeSync();
    },
  };
}

async function interruptible<T>(connection: DuckDBConnection, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  const interrupt = (): void => connection.interrupt();
  signal.addEventListener('abort', interrupt, { once: true });
  try {
    return await work();
  } catch (error) {
    signal.throwIfAborted();
    throw error;
  } finally {
    signal.removeEventListener('abort', interrupt);
  }
}

function plainRow(row: Readonly<Record<string, unknown>>): AnyRow {
  return Object.fromEntries(Object.entries(row).map(([name, value]) => [name, plain(value)]));
}

/** As our rows have it: ISO-8601, numbers, plain objects. */
function plain(value: unknown): unknown {
  if (value instanceof Date) return value.toISOString();
  // Sizes and counts: beyond 2^53 there is nothing.
  if (typeof value === 'bigint') return Number(value);
  if (Array.isArray(value)) {
    const isMap = value.length > 0 && value.every((entry) => isEntry(entry));
    if (isMap) return Object.fromEntries(value.map(({ key, value: inner }) => [String(key), plain(inner)]));
    return value.map(plain);
  }
  return value;
}

function isEntry(value: unknown): value is { key: unknown; value: unknown } {
  return typeof value === 'object' && value !== null && Object.keys(value).join() === 'key,value';
}

/** A text as SQL has it. */
export function sqlText(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}

export function sqlName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export function sqlList(texts: readonly string[]): string {
  return `[${texts.map(sqlText).join(', ')}]`;
}

/** Reads rows from a file with one JSON object a line. Columns that are not there are null. */
export function fromNdjson(path: string, columns: readonly Pick<Column, 'name' | 'type'>[]): string {
  const types = columns.map(({ name, type }) => `${sqlText(name)}: ${sqlText(type)}`).join(', ');
  return `read_json(${sqlText(path)}, format = 'newline_delimited', maximum_object_size = 1048576, columns = {${types}})`;
}

/** Reads Parquet files, of whatever versions of a table. */
export function fromParquet(paths: readonly string[]): string {
  return `read_parquet(${sqlList(paths)}, union_by_name = true, hive_partitioning = false)`;
}
