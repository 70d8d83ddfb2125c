import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Duck, DuckError, openDuck, sqlText } from '../../src/catalog/duck.ts';
import type { AnyRow } from '../../src/catalog/table.ts';

const never = new AbortController().signal;
const MIB = 1024 * 1024;

let folder: string;
let duck: Duck;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-duck-'));
});

afterAll(() => rm(folder, { recursive: true, force: true }));

beforeEach(async () => {
  duck = await openDuck({ memoryBytes: 128 * MIB, threads: 2, folder: join(folder, 'spill') });
});

afterEach(() => duck[Symbol.dispose]());

async function all(sql: string): Promise<AnyRow[]> {
  return (await Array.fromAsync(duck.stream(sql, never))).flat();
}

/** That another statement runs is how it shows that nothing of the one before is left. */
async function expectFree(): Promise<void> {
  expect(await duck.rows('SELECT 42 AS answer', never)).toEqual([{ answer: 42 }]);
}

describe('a stream', () => {
  test('gives every row in the order of the query, a chunk at a time', async () => {
    let [count, last, chunks, wrong] = [0, -1, 0, 0];
    for await (const rows of duck.stream('SELECT range AS n FROM range(1000000) ORDER BY hash(range) % 10, n', never)) {
      chunks += 1;
      for (const { n } of rows) {
        count += 1;
        if (Number(n) < last) wrong += 1;
        last = Number(n);
      }
    }
    expect(count).toBe(1_000_000);
    expect(wrong).toBe(9);
    expect(chunks).toBeGreaterThan(400);
    await expectFree();
  });

  test.each([
    ['SELECT 1 AS a WHERE false', []],
    ['SELECT 1 AS a;  ', [{ a: 1 }]],
    ['SELECT 1 AS a -- with a remark', [{ a: 1 }]],
    ['WITH x AS (SELECT 1 AS a) FROM x', [{ a: 1 }]],
    ['SELECT 1 AS a, 2 AS a', [{ a: 1, a_1: 2 }]],
    ['SELECT NULL AS n, [] AS l', [{ n: null, l: [] }]],
  ])('%s', async (sql, expected) => {
    expect(await all(sql)).toEqual(expected);
  });

  // DuckDB itself ends such an answer as if it were whole.
  test('that fails in the middle says so, and why, and what comes next runs', async () => {
    const sql = `SELECT CASE WHEN range = 1000000 THEN error('spoilt row') ELSE range END AS n FROM range(2000000)`;
    let count = 0;
    const reading = async (): Promise<void> => {
      for await (const rows of duck.stream(sql, never)) count += rows.length;
    };
    await expect(reading()).rejects.toThrow(new DuckError('Invalid Input Error: spoilt row'));
    expect(count).toBeGreaterThan(0);
    expect(count).toBeLessThan(1_000_001);
    await expectFree();
  });

  test('that runs out of memory says so', async () => {
    await expect(all('SELECT list(range) FROM range(40000000)')).rejects.toThrow(/^Out of Memory Error/);
    await expectFree();
  });

  test('that is wrong says so before the first row', async () => {
    await expect(all('SELECT nothing')).rejects.toThrow(/^Binder Error/);
    await expectFree();
  });

  test('that is aborted while it is read throws the reason', async () => {
    const stop = new AbortController();
    const reading = async (): Promise<void> => {
      for await (const _ of duck.stream('SELECT range FROM range(100000000)', stop.signal))
        stop.abort(new Error('enough'));
    };
    await expect(reading()).rejects.toThrow('enough');
    await expectFree();
  });

  test('that is aborted while DuckDB works is interrupted', async () => {
    const stop = new AbortController();
    const endless = 'SELECT count(*) FROM range(10000000) a, range(10000000) b WHERE a.range + b.range = -1';
    const reading = Array.fromAsync(duck.stream(endless, stop.signal));
    setImmediate(() => stop.abort(new Error('enough')));
    await expect(reading).rejects.toThrow('enough');
    await expectFree();
  });

  test('whose signal is aborted never begins', async () => {
    await expect(Array.fromAsync(duck.stream('SELECT 1', AbortSignal.abort(new Error('no'))))).rejects.toThrow('no');
    await expectFree();
  });

  test('whose reader leaves early lets the next statement run, and does no more', async () => {
    for await (const rows of duck.stream('SELECT range FROM range(100000000)', never)) {
      expect(rows.length).toBeGreaterThan(0);
      break;
    }
    await expectFree();
  });

  test('whose reader throws lets the next statement run', async () => {
    const reading = async (): Promise<void> => {
      for await (const _ of duck.stream('SELECT range FROM range(100000000)', never)) throw new Error('mine');
    };
    await expect(reading()).rejects.toThrow('mine');
    await expectFree();
  });

  test('keeps what comes behind it waiting until it has ended', async () => {
    const order: string[] = [];
    let behind: Promise<unknown> | undefined;
    for await (const _ of duck.stream('SELECT range FROM range(10000)', never)) {
      behind ??= duck.rows('SELECT 1', never).then(() => order.push('behind'));
      order.push('row');
    }
    await behind;
    expect(order.at(-1)).toBe('behind');
    expect(order.length).toBeGreaterThan(2);
  });
});

const EXACT = [
  ['9007199254740991', 9_007_199_254_740_991],
  ['9007199254740993', '9007199254740993'],
  ['(-9223372036854775807 - 1)::BIGINT', '-9223372036854775808'],
  ['18446744073709551615::UBIGINT', '18446744073709551615'],
  ['170141183460469231731687303715884105727::HUGEINT', '170141183460469231731687303715884105727'],
  ['1::HUGEINT', 1],
  ['1.50::DECIMAL(5, 2)', 1.5],
  ['12345678901234567.89::DECIMAL(19, 2)', '12345678901234567.89'],
  ["'nan'::DOUBLE", 'NaN'],
  ["'-inf'::DOUBLE", '-Infinity'],
  ['0.1::DOUBLE', 0.1],
  ['true', true],
  ['NULL', null],
  ["DATE '2026-06-15'", '2026-06-15'],
  ["DATE 'infinity'", 'infinity'],
  ["TIME '12:34:56'", '12:34:56'],
  ["TIMESTAMPTZ '2026-06-15 12:00:00+08'", '2026-06-15T04:00:00.000Z'],
  ["TIMESTAMPTZ '2026-06-15 12:00:00.123456Z'", '2026-06-15T12:00:00.123456Z'],
  ["TIMESTAMPTZ '1969-12-31 23:59:59.999999Z'", '1969-12-31T23:59:59.999999Z'],
  ["TIMESTAMPTZ 'infinity'", 'infinity'],
  ["TIMESTAMP '2026-06-15 12:00:00'", '2026-06-15T12:00:00.000'],
  ["TIMESTAMP_S '2026-06-15 12:00:00'", '2026-06-15T12:00:00.000'],
  ["TIMESTAMP_MS '2026-06-15 12:00:00.5'", '2026-06-15T12:00:00.500'],
  ["INTERVAL '1 day 2 hours'", '1 day 02:00:00'],
  ["'a\\x00\\xFF'::BLOB", '6100ff'],
  ["'00000000-0000-0000-0000-000000000001'::UUID", '00000000-0000-0000-0000-000000000001'],
  ["['b', 'a']", ['b', 'a']],
  ['[]', []],
  ["[DATE '2026-06-15']", ['2026-06-15']],
  ["{'a': 9007199254740993, 'b': [1]}", { a: '9007199254740993', b: [1] }],
  ['MAP {}', {}],
  ['MAP {}::MAP(VARCHAR, VARCHAR)', {}],
  ['[MAP {}::MAP(VARCHAR, VARCHAR)]', [{}]],
  ["MAP {'a': 'b', '__proto__': 'c'}", JSON.parse('{"a": "b", "__proto__": "c"}')],
  ['MAP {1: 2}', { 1: 2 }],
  ["[{'key': 'a', 'value': 1}]", [{ key: 'a', value: 1 }]],
  ["'a'::ENUM('a', 'b')", 'a'],
  ['union_value(n := 1)', { tag: 'n', value: 1 }],
  ['\'{"a": 1}\'::JSON', '{"a": 1}'],
] as const;

test.each(EXACT)('%s is given as JSON has it', async (sql, expected) => {
  const [[streamed], [read]] = await Promise.all([all(`SELECT ${sql} AS v`), duck.rows(`SELECT ${sql} AS v`, never)]);
  expect(streamed?.['v']).toEqual(expected);
  expect(read?.['v']).toEqual(expected);
  expect(JSON.parse(JSON.stringify(streamed))).toEqual({ v: expected });
});

describe('inspected', () => {
  test.each([
    ['SELECT 1 AS a, 2 AS a', { isQuery: true, parameters: 0, columns: ['a', 'a_1'] }],
    ['SELECT $1 AS a', { isQuery: true, parameters: 1 }],
    ['DESCRIBE SELECT 1', { isQuery: true, parameters: 0 }],
    ['SUMMARIZE SELECT 1', { isQuery: true, parameters: 0 }],
    ['SHOW TABLES', { isQuery: true, parameters: 0 }],
    ['VALUES (1)', { isQuery: true, parameters: 0, columns: ['col0'] }],
    ['', { isQuery: false }],
    [' ; -- nothing', { isQuery: false }],
    ['SELECT 1; SELECT 2', { isQuery: false }],
    ['CREATE TABLE t (a INT)', { isQuery: false }],
    ['SET threads = 1', { isQuery: false }],
    ['PRAGMA version', { isQuery: false }],
    ["COPY (SELECT 1) TO '/tmp/x'", { isQuery: false }],
    ['CALL enable_logging()', { isQuery: false }],
    ['BEGIN', { isQuery: false }],
  ])('%j is told for what it is', async (sql, expected) => {
    expect(await duck.inspect(sql, never)).toMatchObject(expected);
    await expectFree();
  });

  test('what is wrong throws what DuckDB says', async () => {
    await expect(duck.inspect('selec 1', never)).rejects.toThrow(/^Parser Error/);
    await expect(duck.inspect('select a', never)).rejects.toThrow(/^Binder Error/);
  });
});

describe('once locked', () => {
  test('no file is read or written but those that were named, and no setting is changed', async () => {
    const known = join(folder, 'known');
    await mkdir(known);
    const [one, other] = [join(known, 'one.parquet'), join(known, 'other.parquet')];
    for (const path of [one, other]) await duck.run(`COPY (SELECT 1 AS a) TO ${sqlText(path)} (FORMAT parquet)`, never);
    await duck.lock([one], never);
    expect(await duck.rows(`SELECT a FROM read_parquet(${sqlText(one)})`, never)).toEqual([{ a: 1 }]);
    for (const sql of [
      `FROM read_parquet(${sqlText(other)})`,
      `FROM ${sqlText(other)}`,
      `FROM glob(${sqlText(join(known, '*'))})`,
      `COPY (SELECT 1) TO ${sqlText(join(known, 'new.csv'))}`,
      `COPY (SELECT 1) TO ${sqlText(other)}`,
      `ATTACH ${sqlText(join(known, 'new.db'))} AS new_db`,
      `EXPORT DATABASE ${sqlText(join(known, 'new'))}`,
      'SET enable_external_access = true',
      "SET allowed_paths = ['/etc/passwd']",
      'SET lock_configuration = false',
      'RESET lock_configuration',
      "SET memory_limit = '100GB'",
      'INSTALL httpfs',
      'LOAD httpfs',
    ])
      await expect(duck.run(sql, never), sql).rejects.toThrow(DuckError);
    expect((await readdir(known)).toSorted()).toEqual(['one.parquet', 'other.parquet']);
  });

  test('what does not fit into memory goes to disk all the same', async () => {
    await duck.lock([], never);
    const sql = 'SELECT count(*) AS n FROM (SELECT range AS a FROM range(10000000) ORDER BY hash(range) LIMIT 9000000)';
    expect(await duck.rows(sql, never)).toEqual([{ n: 9_000_000 }]);
  });
});
