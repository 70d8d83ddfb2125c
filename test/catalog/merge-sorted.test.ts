import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Duck, fromParquet, openDuck, sqlText } from '../../src/catalog/duck.ts';
import { MEDIA_TABLE } from '../../src/catalog/media-table.ts';
import { groupsOf, MAX_FILE_BYTES, mergeSorted } from '../../src/catalog/merge-sorted.ts';
import { writeParquet } from '../../src/catalog/parquet.ts';
import { mediaOf } from '../bench/catalog/rows.ts';

const never = new AbortController().signal;
const SAMPLE = { rows: 1, apps: 1, days: 1, since: Date.parse('2026-06-15') };
/** Three row groups. */
const ROWS = 150_000;

let folder: string;
let duck: Duck;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-merge-'));
  duck = await openDuck({ memoryBytes: 128 * 1024 * 1024, threads: 1, folder: join(folder, 'spill') });
});

afterAll(async () => {
  duck[Symbol.dispose]();
  await rm(folder, { recursive: true, force: true });
});

test('more rows than a row group holds come out in order, each once, the latest of those that were there twice', async () => {
  const one = join(folder, 'one.parquet');
  await writeParquet(duck, MEDIA_TABLE, [{ row: mediaOf(1, SAMPLE).row, mayBeThere: false }], [], one, never);
  // The first file has all rows in no order, the second a fifth of them once more, archived an hour later.
  const made = (where: string, archivedAt: string): string =>
    `SELECT * REPLACE ('media-' || i AS media_id, 'key-' || i AS key, to_timestamp(1781481600 + (i * 7919) % 86400) AS received_at, ${archivedAt} AS archived_at)
     EXCLUDE (i) FROM ${fromParquet([one])}, range(${ROWS}) AS numbers(i) ${where}`.replace(
      /\* REPLACE (\(.*?\))\s+EXCLUDE \(i\)/s,
      '* EXCLUDE (i) REPLACE $1',
    );
  const sources = [join(folder, 'a.parquet'), join(folder, 'b.parquet')];
  const [a = '', b = ''] = sources;
  await duck.run(`COPY (${made('', 'archived_at')}) TO ${sqlText(a)} (FORMAT parquet)`, never);
  await duck.run(
    `COPY (${made('WHERE i % 5 = 0', 'archived_at + INTERVAL 1 HOUR')}) TO ${sqlText(b)} (FORMAT parquet)`,
    never,
  );

  const merged = await mkdtemp(join(folder, 'merged-'));
  const { paths, rows } = await mergeSorted(duck, MEDIA_TABLE, sources, merged, never);
  expect(rows).toBe(ROWS);
  expect(paths).toHaveLength(1);
  const [answer] = await duck.rows(
    `SELECT count(*) AS n, count(DISTINCT media_id) AS different, count(*) FILTER (later) AS later, count(*) FILTER (received_at < before) AS disorder
     FROM (SELECT *, archived_at > (SELECT archived_at FROM ${fromParquet([one])}) AS later, lag(received_at) OVER (ORDER BY file_row_number) AS before
       FROM read_parquet([${paths.map(sqlText).join(', ')}], file_row_number = true))`,
    never,
  );
  expect(answer).toEqual({ n: ROWS, different: ROWS, later: ROWS / 5, disorder: 0 });
}, 60_000);

test('slices go into as few files as may be, in their order, none larger than a file may be', () => {
  const sizes = fc.array(fc.integer({ min: 1, max: 16 * 1024 * 1024 }), { minLength: 1, maxLength: 200 });
  fc.assert(
    fc.property(sizes, (all) => {
      const slices = all.map((sizeBytes, index) => ({ path: String(index), rows: 1, sizeBytes }));
      const groups = groupsOf(slices);
      expect(groups.flat()).toEqual(slices);
      const bytes = groups.map((group) => group.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0));
      for (const size of bytes) expect(size).toBeLessThanOrEqual(MAX_FILE_BYTES);
      const total = all.reduce((sum, size) => sum + size, 0);
      if (total <= MAX_FILE_BYTES) expect(groups).toHaveLength(1);
      else for (const size of bytes) expect(size).toBeGreaterThan(MAX_FILE_BYTES / 16);
    }),
  );
});
