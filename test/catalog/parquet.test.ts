import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parquetMetadata, parquetReadObjects } from 'hyparquet';
import { compressors } from 'hyparquet-compressors';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openDuck } from '../../src/catalog/duck.ts';
import { writeParquet } from '../../src/catalog/parquet.ts';
import type { AnyRow, Table } from '../../src/catalog/table.ts';
import { TABLES } from '../../src/catalog/tables.ts';
import { VERSION } from '../../src/version.ts';

const never = new AbortController().signal;
const AT = '2026-06-15T12:00:00.123Z';
const ROWS = 500;

/** What each type holds in row `index`, and how a reader that is none of ours gives it back. */
const VALUES = {
  VARCHAR: (index: number) => ({ given: `text ${index % 7} "媒体"`, read: `text ${index % 7} "媒体"` }),
  INTEGER: (index: number) => ({ given: index, read: index }),
  BIGINT: (index: number) => ({ given: index + 2 ** 40, read: BigInt(index + 2 ** 40) }),
  DOUBLE: (index: number) => ({ given: index + 0.5, read: index + 0.5 }),
  'TIMESTAMP WITH TIME ZONE': () => ({ given: AT, read: new Date(AT) }),
  'MAP(VARCHAR, VARCHAR)': (index: number) => ({ given: { case: String(index) }, read: { case: String(index) } }),
} as const;

let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-parquet-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

describe.each(Object.values(TABLES))('a file of $name', (table: Table) => {
  let bytes: ArrayBuffer;

  beforeAll(async () => {
    using duck = await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') });
    const rows = Array.from({ length: ROWS }, (_, index): AnyRow => {
      // Every second row has nulls where there may be.
      return Object.fromEntries(
        table.columns.map(({ name, type, nullable }) => [
          name,
          nullable && index % 2 === 1 ? null : VALUES[type](index).given,
        ]),
      );
    });
    const path = join(folder, `${table.name}.parquet`);
    const new_ = rows.map((row) => ({ row, mayBeThere: false }));
    expect(await writeParquet(duck, table, new_, [], path, never)).toBe(ROWS);
    const file = await readFile(path);
    bytes = file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength) as ArrayBuffer;
  });

  test('has its schema and the version of its writer in its metadata', () => {
    const { key_value_metadata: pairs = [] } = parquetMetadata(bytes);
    expect(Object.fromEntries(pairs.map(({ key, value }) => [key, value]))).toMatchObject({
      'weixin-media.schema': `${table.name}/${table.version}`,
      'weixin-media.version': VERSION,
    });
  });

  test('is compressed with zstd, and has statistics and dictionaries', () => {
    const [group] = parquetMetadata(bytes).row_groups;
    const columns = group?.columns.flatMap(({ meta_data }) => meta_data ?? []) ?? [];
    expect(columns.map(({ codec }) => codec).every((codec) => codec === 'ZSTD')).toBe(true);
    const texts = columns.filter(({ type, path_in_schema }) => type === 'BYTE_ARRAY' && path_in_schema.length === 1);
    expect(texts.length).toBeGreaterThan(2);
    for (const { statistics, encodings } of texts) {
      expect(statistics?.min_value ?? statistics?.min).toBeDefined();
      expect(encodings.some((encoding) => encoding.endsWith('DICTIONARY'))).toBe(true);
    }
  });

  test('has instants in UTC and 64-bit sizes', () => {
    const { schema } = parquetMetadata(bytes);
    for (const { name, type } of table.columns) {
      const element = schema.find((one) => one.name === name);
      if (type === 'TIMESTAMP WITH TIME ZONE')
        expect(element?.logical_type).toMatchObject({ type: 'TIMESTAMP', isAdjustedToUTC: true, unit: 'MICROS' });
      if (type === 'BIGINT') expect(element?.type).toBe('INT64');
    }
  });

  test('is read by another reader as it was written', async () => {
    const read = await parquetReadObjects({ file: bytes, compressors });
    expect(read).toHaveLength(ROWS);
    const byNumber = new Map(read.map((row) => [JSON.stringify(row, jsonOf), row]));
    for (const index of [0, 1, 42, ROWS - 1]) {
      const expected = Object.fromEntries(
        table.columns.map(({ name, type, nullable }) => [
          name,
          nullable && index % 2 === 1 ? null : VALUES[type](index).read,
        ]),
      );
      expect([...byNumber.keys()]).toContain(JSON.stringify(expected, jsonOf));
    }
  });
});

/** 64-bit numbers as text; no value as none at all: the reader has `undefined` for a map that is null. */
function jsonOf(_name: string, value: unknown): unknown {
  if (typeof value === 'bigint') return value.toString();
  return value === null ? undefined : value;
}
