import { readFileSync } from 'node:fs';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeObject } from '../../src/archive/object-metadata.ts';
import { acceptedRowOf } from '../../src/catalog/accepted-table.ts';
import { deadLetterRowOf } from '../../src/catalog/dead-letter-table.ts';
import { type DuckLimits, openDuck } from '../../src/catalog/duck.ts';
import { mediaRowOf } from '../../src/catalog/media-table.ts';
import { writeParquet } from '../../src/catalog/parquet.ts';
import { type CatalogQueries, openQueries, QueryError } from '../../src/catalog/query.ts';
import type { AnyRow, TableName } from '../../src/catalog/table.ts';
import { TABLES } from '../../src/catalog/tables.ts';
import { deadLetterKey, mediaKey } from '../../src/store/object-keys.ts';
import { HOUR, iso, SECOND } from '../../src/time.ts';
import { testJob } from '../support/jobs.ts';

const doc = readFileSync(new URL('../../docs/catalog.md', import.meta.url), 'utf8');
const never = new AbortController().signal;
const MEMORY = 128 * 1024 * 1024;

describe.each(Object.values(TABLES))('the schema page of $name', (table) => {
  const [, section = ''] = doc.split(`schema \`${table.name}/${table.version}\``);
  const rows = section
    .split('\n\n')
    .find((block) => block.startsWith('| column'))
    ?.split('\n')
    .slice(2);

  test('has each column with its type, unit, nullability and meaning, in their order', () => {
    expect(rows).toEqual(
      table.columns.map(
        ({ name, type, nullable, unit = '', meaning }: (typeof table.columns)[number] & { unit?: string }) =>
          `| \`${name}\` | ${type} | ${nullable ? 'yes' : 'no'} | ${unit} | ${meaning} |`,
      ),
    );
  });
});

describe('what other engines are told', () => {
  const columnsIn = (start: string, end: string): string[] => {
    const block = doc.slice(doc.indexOf(start), doc.indexOf(end));
    return [...block.matchAll(/^ {2}`?(\w+)`? (?:string|int|bigint|double|timestamp|map|varchar|integer)/gm)].map(
      ([, name = '']) => name,
    );
  };
  const names = TABLES.media.columns.map(({ name }) => name);

  test('names every column of media', () => {
    expect(columnsIn('CREATE EXTERNAL TABLE', 'PARTITIONED BY')).toEqual(names);
    expect(columnsIn('CREATE TABLE hive', '  dt varchar, app')).toEqual(names);
  });
});

const RECEIVED = Date.parse('2026-06-15T12:00:00.000Z');

function mediaRow(
  mediaId: string,
  archivedAfterMs: number,
  more: { readonly sha256?: string; readonly label?: string } = {},
): AnyRow {
  const job = testJob({
    mediaId,
    receivedAt: iso(RECEIVED),
    source: { messageId: mediaId, openId: `hmac-sha256:${'ab'.repeat(32)}` },
    ...(more.label === undefined ? {} : { labels: { case: more.label } }),
  });
  const attempt = {
    enqueuedAt: RECEIVED + SECOND,
    startedAt: RECEIVED + SECOND,
    attempt: 1,
    deadline: RECEIVED + 72 * HOUR,
  };
  const sha256 = more.sha256 ?? mediaId.padEnd(64, '0');
  const body = { declaredType: 'image/png', sniffed: { mime: 'image/jpeg', extension: 'jpg' } };
  const { metadata } = describeObject(job, body, attempt, iso(RECEIVED + archivedAfterMs), sha256);
  const row = mediaRowOf({ key: mediaKey(job, 'jpg'), sizeBytes: 1_000, sha256, contentType: 'image/jpeg', metadata });
  if (row === undefined) throw new Error('no row');
  return row;
}

let folder: string;
let queries: CatalogQueries;
const paths: Partial<Record<TableName, string[]>> = {};

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-queries-'));
  using duck = await openDuck({ memoryBytes: MEMORY, threads: 1, folder: join(folder, 'spill') });
  const lost = testJob({ mediaId: 'lost', receivedAt: iso(RECEIVED) });
  const dead = testJob({ mediaId: 'dead', receivedAt: iso(RECEIVED) });
  const letter = {
    v: 1 as const,
    appId: dead.appId,
    mediaId: dead.mediaId,
    job: dead,
    reason: 'media-expired' as const,
    firstAttemptAt: iso(RECEIVED),
    diedAt: iso(RECEIVED + 73 * HOUR),
    deadline: iso(RECEIVED + 72 * HOUR),
    attempts: [],
    status: 'open' as const,
    replays: [],
  };
  const rows: Partial<Record<TableName, AnyRow[]>> = {
    media: [
      mediaRow('a', 2 * SECOND, { sha256: 'f'.repeat(64), label: '42' }),
      mediaRow('b', 4 * SECOND, { sha256: 'f'.repeat(64) }),
      mediaRow('c', 71.5 * HOUR),
    ],
    accepted: [lost, lost, dead].map((job) => acceptedRowOf(job, RECEIVED)),
    'dead-letters': [
      deadLetterRowOf(deadLetterKey(dead), letter),
      deadLetterRowOf(`${deadLetterKey(dead)}2`, {
        ...letter,
        mediaId: 'saved',
        status: 'resolved',
        archivedKey: 'media/x',
      }),
    ],
  };
  for (const [name, ofTable] of Object.entries(rows) as [TableName, AnyRow[]][]) {
    const partition = join(folder, 'catalog', name, 'dt=2026-06-15', 'app=wx0123456789abcdef');
    await mkdir(partition, { recursive: true });
    const path = join(partition, '1.parquet');
    await writeParquet(
      duck,
      TABLES[name],
      ofTable.map((row) => ({ row, mayBeThere: false })),
      [],
      path,
      never,
    );
    paths[name] = [path];
  }
  queries = await openQueries({ derived: [], ...paths }, limits(), never);
});

afterAll(async () => {
  queries[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
});

function limits(): DuckLimits {
  return { memoryBytes: MEMORY, threads: 1, folder: join(folder, 'spill') };
}

async function ask(sql: string, signal = never): Promise<AnyRow[]> {
  const { rows } = await queries.run(sql, signal);
  return (await Array.fromAsync(rows)).flat();
}

const ready = [...doc.matchAll(/^([^\n]+):\n\n```sql\n([\s\S]*?)\n```/gm)].map(([, title = '', sql = '']) => ({
  title,
  sql,
}));
const BASE = { dt: '2026-06-15', app: 'wx0123456789abcdef' };
/** What each gives here, in the order of the page. */
const EXPECTED: readonly AnyRow[][] = [
  [{ ...BASE, media: 3, bytes: 3_000 }],
  [
    {
      app: BASE.app,
      media_id: 'c',
      kind: 'image',
      margin_seconds: 1_800,
      attempts: 1,
      archived_at: '2026-06-18T11:30:00.000Z',
    },
  ],
  [{ app: BASE.app, media: 3, median_hours: 72, worst_percent_hours: 1.93, worst_hours: 0.5 }],
  [{ dt: BASE.dt, mean_seconds: 85_802, p95_seconds: 231_660.4 }],
  [{ attempts: 1, media: 3 }],
  [
    {
      sha256: 'f'.repeat(64),
      copies: 2,
      bytes: 1_000,
      keys: ['a', 'b'].map((id) => `media/app=${BASE.app}/kind=image/dt=2026-06-15/${id}.jpg`),
    },
  ],
  ['a', 'b', 'c'].map((id) => ({ key: `media/app=${BASE.app}/kind=image/dt=2026-06-15/${id}.jpg`, size_bytes: 1_000 })),
  [{ declared_type: 'image/png', sniffed_type: 'image/jpeg', media: 3 }],
  [{ open_id: `hmac-sha256:${'ab'.repeat(32)}`, media: 3, first_at: iso(RECEIVED), last_at: iso(RECEIVED) }],
  [{ case: '42', media: 1 }],
  ['open', 'resolved'].map((status) => ({
    reason: 'media-expired',
    status,
    letters: 1,
    last_at: '2026-06-18T13:00:00.000Z',
  })),
  [{ app_id: BASE.app, media_id: 'saved', reason: 'media-expired', archived_key: 'media/x' }],
  [{ dt: BASE.dt, app_id: BASE.app, media: 1 }],
  [{ worker_version: '0.1.0', media: 3, last_at: '2026-06-18T11:30:00.000Z' }],
];

describe('the ready queries', () => {
  test('are all expected to give something', () => {
    expect(ready).toHaveLength(EXPECTED.length);
  });

  test.each(ready.map((query, index) => ({ ...query, expected: EXPECTED[index] ?? [] })))(
    '$title',
    async ({ sql, expected }) => {
      const rows = await ask(sql);
      const byText = (a: AnyRow, b: AnyRow): number => (JSON.stringify(a) < JSON.stringify(b) ? -1 : 1);
      expect(rows.toSorted(byText)).toEqual(expected.toSorted(byText));
    },
  );
});

describe('a query', () => {
  test.each([
    "select * from read_csv('/etc/passwd')",
    "select * from read_text('/proc/self/environ')",
    "select * from glob('/etc/*')",
    "copy media to '/tmp/weixin-media-stolen.csv'",
    "attach '/tmp/weixin-media-stolen.db'",
    'install httpfs',
    'load httpfs',
    'set enable_external_access = true',
    'create table t (a int)',
    'drop view media',
    'select 1; select 2',
    'select * from nowhere',
    'selec 1',
    '',
  ])('may not be %j', async (sql) => {
    await expect(ask(sql)).rejects.toThrow(QueryError);
  });

  test('gives every type as JSON has it', async () => {
    const sql = `select date '2026-01-02' as d, map {} as none, map {'a': 1} as some, 5::hugeint as small,
      9223372036854775807 as large, 1.5::decimal(5, 2) as fraction, [1, 2] as list, {'a': 1::bigint} as nested,
      '\\x41'::blob as bytes, timestamptz '2026-01-01 00:00:00+08' as instant, true as yes, null as nothing`;
    expect(await ask(sql)).toEqual([
      {
        d: '2026-01-02',
        none: {},
        some: { a: 1 },
        small: 5,
        large: '9223372036854775807',
        fraction: 1.5,
        list: [1, 2],
        nested: { a: 1 },
        bytes: '41',
        instant: '2025-12-31T16:00:00.000Z',
        yes: true,
        nothing: null,
      },
    ]);
  });

  test('of a table without files finds no rows, and all columns', async () => {
    expect(await ask('select * from derived')).toEqual([]);
    const described = await ask('describe derived');
    expect(described.map((row) => row['column_name'])).toEqual([
      ...TABLES.derived.columns.map(({ name }) => name),
      'dt',
      'app',
    ]);
  });

  test('ends when its signal aborts, and the next one runs', async () => {
    const stop = new AbortController();
    const { rows } = await queries.run('select * from range(100000000)', stop.signal);
    const reading = (async () => {
      for await (const _ of rows) stop.abort(new Error('enough'));
    })();
    await expect(reading).rejects.toThrow('enough');
    expect(await ask('select 1 as one')).toEqual([{ one: 1 }]);
  });
});
