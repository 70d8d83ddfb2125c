import { mkdir, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type DuckLimits, openDuck, sqlText } from '../../src/catalog/duck.ts';
import { openQueries, QueryError, type TableFiles, tablesIn } from '../../src/catalog/query.ts';
import { type AnyRow, TABLE_NAMES, type TableName } from '../../src/catalog/table.ts';
import { TABLES } from '../../src/catalog/tables.ts';
import { openSmallCatalog, type SmallCatalog } from '../support/small-catalog.ts';

const never = new AbortController().signal;
const [ONE, OTHER] = ['wx0123456789abcdef', 'wxfedcba9876543210'];
const DAYS = ['2026-06-14T23:59:59.999Z', '2026-06-15T00:00:00.000Z'];

let folder: string;
let limits: DuckLimits;
let catalog: SmallCatalog;
let files: Record<TableName, string[]>;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-query-'));
  limits = { memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') };
  catalog = await openSmallCatalog();
  files = { media: [], 'dead-letters': [], accepted: [], derived: [] };
  for (const [index, app] of [ONE, OTHER, ONE].entries()) {
    const received_at = DAYS[index % 2] ?? '';
    const row = { app_id: app, media_id: `m${index}`, received_at, labels: index === 1 ? {} : null };
    files.media.push((await catalog.write('media', [row], `part-${index}`)).path);
  }
  const accepted = [ONE, OTHER].map((app_id) => ({ app_id, media_id: 'a', received_at: DAYS[0] }));
  files.accepted.push((await catalog.write('accepted', accepted, 'part')).path);
  const letter = { app_id: ONE, key: `dead-letters/app=${ONE}/dt=2026-06-15/x.json`, reason: 'media-expired' };
  files['dead-letters'].push((await catalog.write('dead-letters', [letter], 'letters')).path);
});

afterAll(async () => {
  await catalog[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

async function ask(sql: string, over: TableFiles = files, app?: string): Promise<AnyRow[]> {
  using queries = await openQueries(over, limits, never, app);
  const { rows } = await queries.run(sql, never);
  return (await Array.fromAsync(rows)).flat();
}

describe('a table', () => {
  test('has its day and app, which are not in its files', async () => {
    expect(await ask('SELECT media_id, dt, typeof(dt) AS t, app FROM media ORDER BY media_id')).toEqual([
      { media_id: 'm0', dt: '2026-06-14', t: 'DATE', app: ONE },
      { media_id: 'm1', dt: '2026-06-15', t: 'DATE', app: OTHER },
      { media_id: 'm2', dt: '2026-06-14', t: 'DATE', app: ONE },
    ]);
    expect(await ask('SELECT dt, app FROM accepted ORDER BY app')).toEqual(
      [ONE, OTHER].map((app) => ({ dt: '2026-06-14', app })),
    );
    expect(await ask('SELECT dt, app FROM dead_letters')).toEqual([{ dt: '2026-06-15', app: ONE }]);
  });

  test('shows the rows of one app, where one is named', async () => {
    const sql = 'SELECT (SELECT count(*) FROM media) AS media, (SELECT count(*) FROM accepted) AS accepted';
    expect(await ask(sql, files, ONE)).toEqual([{ media: 2, accepted: 1 }]);
    expect(await ask(sql, files, "x' OR true --")).toEqual([{ media: 0, accepted: 0 }]);
  });

  test('keeps no labels and none at all apart', async () => {
    expect(await ask('SELECT labels FROM media ORDER BY media_id')).toEqual([
      { labels: null },
      { labels: {} },
      { labels: null },
    ]);
  });

  test.each(TABLE_NAMES)('%s has the same columns with files and without', async (name) => {
    const sql = `DESCRIBE ${name.replace('-', '_')}`;
    const columns = (await ask(sql, { [name]: [] })).map(({ column_name, column_type }) => [column_name, column_type]);
    expect(columns).toEqual([
      ...TABLES[name].columns.map((column) => [column.name, column.type]),
      ['dt', 'DATE'],
      ['app', 'VARCHAR'],
    ]);
    if (files[name].length > 0)
      expect((await ask(sql)).map(({ column_name, column_type }) => [column_name, column_type])).toEqual(columns);
  });

  test('whose files are of an earlier version has null where they have no column, and of a later one what is known', async () => {
    const path = join(catalog.folder, `catalog/media/dt=2026-06-16/app=${ONE}/early.parquet`);
    using duck = await openDuck(limits);
    await duck.run(
      `CREATE TABLE t AS SELECT * EXCLUDE (etag), 'x' AS of_tomorrow FROM read_parquet(${sqlText(files.media[0] ?? '')}, hive_partitioning = false)`,
      never,
    );
    await mkdir(dirname(path), { recursive: true });
    await duck.run(`COPY t TO ${sqlText(path)} (FORMAT parquet)`, never);
    const [row] = await ask('SELECT * FROM media', { media: [path] });
    expect(row).toMatchObject({ media_id: 'm0', etag: null, dt: '2026-06-16' });
    expect(row).not.toHaveProperty('of_tomorrow');
    expect(await ask('SELECT count(*) AS n FROM media', { media: [path, ...files.media] })).toEqual([{ n: 4 }]);
  });

  test('that was not given does not exist: it is not taken for an empty one', async () => {
    await expect(ask('SELECT * FROM derived', { media: [] })).rejects.toThrow('does not exist');
  });
});

const READ: readonly [string, readonly TableName[]][] = [
  ['SELECT 1', []],
  ["SELECT 'media' AS accepted -- derived", []],
  ['WITH media AS (SELECT 1 AS a) SELECT * FROM media', []],
  ['SELECT * FROM Media', ['media']],
  ['FROM media SELECT kind', ['media']],
  ['SELECT * FROM media m JOIN dead_letters d USING (media_id)', ['media', 'dead-letters']],
  ['SELECT * FROM media SEMI JOIN accepted USING (app_id)', ['media', 'accepted']],
  ['SELECT (SELECT count(*) FROM main.media), EXISTS (FROM derived)', ['media', 'derived']],
  ["PIVOT media ON kind IN ('image') USING count(*)", ['media']],
  ['UNPIVOT media ON app_id, kind INTO NAME n VALUE v', ['media']],
  ["SELECT * FROM query_table('media')", ['media']],
  ["SELECT * FROM query('SELECT * FROM acc' || 'epted')", ['accepted']],
  ['SUMMARIZE media', ['media']],
  ['DESCRIBE derived', ['derived']],
  ['SELECT * FROM media UNION ALL SELECT * FROM media', ['media']],
];

test.each(READ)('%s reads its tables and no others', async (sql, tables) => {
  expect(await tablesIn(sql, limits, never)).toEqual(tables);
});

describe('no query', () => {
  test.each([
    ['', /one SELECT/],
    ['-- nothing', /one SELECT/],
    ['SELECT 1; DROP VIEW media', /one SELECT/],
    ["COPY (SELECT 1 AS a) TO 'MEDIA' (FORMAT parquet)", /one SELECT/],
    ["COPY media FROM 'MEDIA'", /./],
    ['CREATE TABLE t AS FROM media', /one SELECT/],
    ['INSERT INTO media SELECT * FROM media', /./],
    ['SET memory_limit = 1', /./],
    ['PRAGMA version', /one SELECT/],
    ["ATTACH ':memory:' AS x", /one SELECT/],
    ['CALL enable_logging()', /one SELECT/],
    ['EXPLAIN ANALYZE SELECT 1', /one SELECT/],
    ['SELECT $1', /values open/],
    ['SELECT * FROM media WHERE kind = ?', /values open/],
    ["SELECT * FROM read_csv('/etc/passwd')", /file system operations are disabled/],
    ["SELECT * FROM read_text('/proc/self/environ')", /file system operations are disabled/],
    ["SELECT * FROM '/etc/passwd'", /does not exist/],
    ["SELECT * FROM glob('FOLDER/**')", /file system operations are disabled/],
    ["SELECT * FROM read_parquet('ACCEPTED')", /file system operations are disabled/],
    ["SELECT * FROM read_parquet('FOLDER/catalog/media/../accepted/*/*.parquet')", /disabled/],
    ["SELECT * FROM read_parquet('s3://bucket/x.parquet')", /./],
    ["SELECT * FROM read_json('https://example.com/')", /./],
    ["SELECT getenv('HOME')", /does not exist/],
  ])('%s is run', async (text, message) => {
    const sql = text
      .replace('MEDIA', files.media[0] ?? '')
      .replace('ACCEPTED', files.accepted[0] ?? '')
      .replace('FOLDER', catalog.folder);
    const before = await contents();
    await expect(ask(sql, { media: files.media })).rejects.toThrow(QueryError);
    await expect(ask(sql, { media: files.media })).rejects.toThrow(message);
    expect(await contents()).toEqual(before);
  });

  /** Every file, with its bytes. */
  async function contents(): Promise<Record<string, string>> {
    const entries = await readdir(catalog.folder, { recursive: true, withFileTypes: true });
    const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
    return Object.fromEntries(await Promise.all(paths.map(async (path) => [path, await readFile(path, 'hex')])));
  }
});

test('a query that logs to a file writes none', async () => {
  const path = join(folder, 'log');
  const sql = `SELECT * FROM enable_logging(storage = 'file', storage_config = {'path': ${sqlText(path)}})`;
  await ask(sql).catch(() => undefined);
  expect(await readdir(folder)).not.toContain('log');
});

test('what the machine is to blame for is no mistake of the query', async () => {
  const failing = [
    ['SELECT list(range) FROM range(40000000)', false],
    ["SELECT CASE WHEN range = 100000 THEN error('x') END FROM range(200000)", true],
    ["SELECT CAST('x' AS INT)", true],
    ['SELECT nothing FROM media', true],
  ] as const;
  for (const [sql, isMistake] of failing) await expect(ask(sql), sql).rejects.toMatchObject({ isMistake });
});

test('a file that is none is told as such', async () => {
  const path = join(catalog.folder, 'spill', 'none.parquet');
  await expect(ask('SELECT * FROM media', { media: [path] })).rejects.toThrow(/^IO Error/);
});
