import { type DuckDBConnection, DuckDBInstance, type DuckDBPreparedStatement, StatementType } from '@duckdb/node-api';
import { jsonValue } from './json-value.ts';
import type { AnyRow, Column } from './table.ts';

/** What DuckDB may use. */
export interface DuckLimits {
  /** Beyond it DuckDB writes to `folder`, or gives up. What it holds beside its buffers comes on top: some 100 MiB. */
  readonly memoryBytes: number;
  readonly threads: number;
  /** For what does not fit into memory. */
  readonly folder: string;
}

const INTERRUPT_EVERY_MS = 50;

/** DuckDB refuses a statement, or fails in it. The message is DuckDB's, and begins with the kind of the error. */
export class DuckError extends Error {
  override readonly name = 'DuckError';
}

/** What DuckDB says of a statement without running it. */
export interface Inspected {
  /** True for one statement that asks and changes nothing. */
  readonly isQuery: boolean;
  /** How many values it leaves open: `$1`. */
  readonly parameters: number;
  /** The columns of the answer, each by another name. */
  readonly columns: readonly string[];
}

/**
 * DuckDB in this process, for Parquet: it writes, merges and queries files on this machine's disk.
 *
 * It loads no extension from anywhere, and a statement runs after the one before has ended. What it refuses or fails in
 * is thrown as a `DuckError`. An aborted signal interrupts a statement and throws its reason.
 */
export interface Duck extends Disposable {
  /** Runs statements that give nothing back. */
  run(sql: string, signal: AbortSignal): Promise<void>;
  /** Runs a query whose whole answer fits into memory. Values come as `jsonValue` says. */
  rows(sql: string, signal: AbortSignal): Promise<AnyRow[]>;
  /**
   * Runs one query (no PRAGMA) and gives its rows as they come, some 2,000 at a time, in its order. Nothing else may run
   * until they have ended, or their reader has left the loop.
   *
   * An answer that ends without an error is whole.
   */
  stream(sql: string, signal: AbortSignal): AsyncIterable<readonly AnyRow[]>;
  /** Looks at a statement, as far as binding its names and types. It opens the files that the statement names. */
  inspect(sql: string, signal: AbortSignal): Promise<Inspected>;
  /** Leaves these files alone to be opened, and no setting to be changed, for good. */
  lock(paths: readonly string[], signal: AbortSignal): Promise<void>;
}

export async function openDuck({ memoryBytes, threads, folder }: DuckLimits): Promise<Duck> {
  const instance = await DuckDBInstance.create(':memory:', {
    memory_limit: `${Math.floor(memoryBytes / 1024)}KiB`,
    threads: String(threads),
    temp_directory: folder,
    // Statements run on whichever thread is free, and each would keep what it has once needed: a third of the memory.
    allocator_flush_threshold: '1MiB',
    allocator_bulk_deallocation_flush_threshold: '1MiB',
    // The files are on this machine, and most are read once.
    enable_external_file_cache: 'false',
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

  /** Says why an answer has ended too soon: the statement is run once more, and what it gives is thrown away. */
  async function whyEnded(sql: string, signal: AbortSignal): Promise<DuckError> {
    signal.throwIfAborted();
    try {
      await interruptible(connection, signal, () => connection.run(`EXPLAIN ANALYZE\n${sql}`));
    } catch (error) {
      if (error instanceof DuckError) return error;
      throw error;
    }
    return new DuckError('DuckDB ended its answer before it was whole, and does not say why');
  }

  return {
    run: (sql, signal) =>
      next(() => interruptible(connection, signal, () => connection.run(sql)).then(() => undefined)),
    rows: (sql, signal) =>
      next(async () => {
        const reader = await interruptible(connection, signal, () => connection.runAndReadAll(sql));
        return reader.convertRowObjects(jsonValue);
      }),
    async *stream(sql, signal) {
      const { promise: ended, resolve } = Promise.withResolvers<void>();
      const result = await new Promise<Awaited<ReturnType<DuckDBConnection['stream']>>>((started, failed) => {
        next(async () => {
          started(await interruptible(connection, signal, () => connection.stream(withEnd(sql))));
          await ended;
        }).catch(failed);
      });
      const interrupt = interrupting(connection, signal);
      try {
        for await (const chunk of result.yieldConvertedRowObjects(jsonValue)) {
          signal.throwIfAborted();
          const isWhole = chunk.at(-1)?.[END] === true;
          const rows = isWhole ? chunk.slice(0, -1) : chunk;
          for (const row of rows) delete row[END];
          if (rows.length > 0) yield rows;
          if (isWhole) return;
        }
        throw await whyEnded(sql, signal);
      } finally {
        interrupt[Symbol.dispose]();
        resolve();
      }
    },
    inspect: (sql, signal) =>
      next(() =>
        interruptible(connection, signal, async () => {
          const count = await statementsIn(connection, sql);
          if (count !== 1) return { isQuery: false, parameters: 0, columns: [] };
          const [type, parameters] = await prepared(connection, sql, (statement) => [
            statement.statementType,
            statement.parameterCount,
          ]);
          if (type !== StatementType.SELECT) return { isQuery: false, parameters: 0, columns: [] };
          const columns = await prepared(connection, withEnd(sql), namesOf).catch(() => undefined);
          return { isQuery: columns !== undefined, parameters, columns: columns ?? [] };
        }),
      ),
    lock: (paths, signal) =>
      next(() =>
        interruptible(connection, signal, async () => {
          await connection.run(`SET allowed_paths = ${sqlList(paths)}`);
          await connection.run('SET enable_external_access = false');
          await connection.run('SET lock_configuration = true');
        }),
      ),
    [Symbol.dispose]: () => {
      connection.closeSync();
      instance.closeSync();
    },
  };
}

async function interruptible<T>(connection: DuckDBConnection, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  signal.throwIfAborted();
  using _ = interrupting(connection, signal);
  try {
    return await work();
  } catch (error) {
    signal.throwIfAborted();
    throw new DuckError(
      error instanceof Error ? error.message.replace(/^Failed to \w+ statements: /, '') : String(error),
    );
  }
}

/**
 * Interrupts what runs on a connection once the signal aborts, until it is disposed of: a statement that is about to begin
 * does not notice an interrupt, so there is more than one.
 */
function interrupting(connection: DuckDBConnection, signal: AbortSignal): Disposable {
  let timer: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    connection.interrupt();
    timer = setInterval(() => connection.interrupt(), INTERRUPT_EVERY_MS);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  return {
    [Symbol.dispose]: () => {
      signal.removeEventListener('abort', onAbort);
      clearInterval(timer);
    },
  };
}

/** A column that no statement has. */
const END = 'weixin-media: end';

/**
 * Puts a row behind all others. A stream that breaks off ends like one that is whole: what went wrong in it is not to be
 * had from the Node package.
 *
 * @see https://github.com/duckdb/duckdb-rs/pull/832
 */
function withEnd(sql: string): string {
  const query = sql.replace(/[\s;]+$/, '');
  return `SELECT *, NULL AS ${sqlName(END)} FROM (\n${query}\n) UNION ALL BY NAME SELECT true AS ${sqlName(END)}`;
}

async function statementsIn(connection: DuckDBConnection, sql: string): Promise<number> {
  try {
    return (await connection.extractStatements(sql)).count;
  } catch (error) {
    // It says nothing of a text in which there is none.
    if (error instanceof Error && /^Failed to extract/.test(error.message)) throw error;
    return 0;
  }
}

async function prepared<T>(
  connection: DuckDBConnection,
  sql: string,
  look: (statement: DuckDBPreparedStatement) => T,
): Promise<T> {
  const statement = await connection.prepare(sql);
  try {
    return look(statement);
  } finally {
    statement.destroySync();
  }
}

function namesOf(statement: DuckDBPreparedStatement): string[] {
  const names = Array.from({ length: statement.columnCount }, (_, index) => statement.columnName(index));
  return names.filter((name) => name !== END);
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
