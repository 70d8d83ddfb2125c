import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { partitionPrefix } from '../../src/catalog/catalog-keys.ts';
import { openDuck } from '../../src/catalog/duck.ts';
import { partitionOf } from '../../src/catalog/flush.ts';
import { writeParquet } from '../../src/catalog/parquet.ts';
import type { AnyRow, Table, TableName } from '../../src/catalog/table.ts';
import { TABLES } from '../../src/catalog/tables.ts';

const never = new AbortController().signal;

/** What a column has where a test says nothing. */
const FILLING = {
  VARCHAR: 'text',
  INTEGER: 1,
  BIGINT: 1_000,
  DOUBLE: 0.5,
  'TIMESTAMP WITH TIME ZONE': '2026-06-15T12:00:00.000Z',
  'MAP(VARCHAR, VARCHAR)': {},
} as const;

/** A row of a table: null where it may be, and something where it must. */
export function rowOf(name: TableName, values: AnyRow): AnyRow {
  const { columns }: Table = TABLES[name];
  const some = columns.map((column) => [column.name, column.nullable ? null : FILLING[column.type]]);
  return { ...Object.fromEntries(some), ...values };
}

/** A Parquet file with rows of one partition: its key in the bucket, and where it lies now. */
export interface SmallFile {
  readonly key: string;
  readonly path: string;
}

export interface SmallCatalog extends AsyncDisposable {
  /** Below `catalog/` in it files lie as in the bucket. */
  readonly folder: string;
  /** Writes rows of one partition to a file of this name. */
  write(name: TableName, rows: readonly AnyRow[], file: string): Promise<SmallFile>;
}

/** A catalog on disk, file by file. */
export async function openSmallCatalog(): Promise<SmallCatalog> {
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-small-catalog-'));
  const duck = await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') });
  return {
    folder,
    write: async (name, rows, file) => {
      const table: Table = TABLES[name];
      const all = rows.map((row) => rowOf(name, row));
      const prefix = partitionPrefix(partitionOf(table, all[0] ?? {}));
      const key = `${prefix}${file}.parquet`;
      const path = join(folder, key);
      await mkdir(dirname(path), { recursive: true });
      const news = all.map((row) => ({ row, mayBeThere: false }));
      await writeParquet(duck, table, news, [], path, never);
      await rm(`${path}.ndjson`, { force: true });
      return { key, path };
    },
    [Symbol.asyncDispose]: async () => {
      duck[Symbol.dispose]();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
