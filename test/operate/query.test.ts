import { mkdir, readdir } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { tablePrefix } from '../../src/catalog/catalog-keys.ts';
import { filesOf } from '../support/catalog.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID } from '../support/jobs.ts';
import { jobOf, keysBelow, openStack, type Stack, untilIdle } from '../support/stack.ts';

const never = new AbortController().signal;
let stack: Stack;

beforeAll(async () => {
  stack = await openStack({ env: { ...COMPILE_CACHE, CATALOG_FLUSH_SECONDS: '0.05', WORKER_LOCK_SECONDS: '2' } });
  const worker = stack.worker();
  const catalog = stack.catalog();
  await stack.queue.door.admit(stack.addMedia(3).map(jobOf));
  await untilIdle(stack);
  await eventually(async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined));
  await Promise.all([worker.stop(), catalog.stop()]);
});

afterAll(() => stack[Symbol.asyncDispose]());

test('asks the bucket, in JSON and for people', async () => {
  const sql = 'select app, count(*) as media, sum(size_bytes) > 0 as full from media group by app';
  const [json, text] = await Promise.all([stack.command(['query', sql, '--json']), stack.command(['query', sql])]);
  expect(json).toMatchObject({ code: 0, stderr: '' });
  expect(json.rows()).toEqual([{ app: APP_ID, media: 3, full: true }]);
  expect(text.stdout).toMatch(new RegExp(`^app +media +full\n${APP_ID} +3 +true\n$`));
});

test('asks a copy on disk, without a bucket', async () => {
  const files = filesOf(stack);
  const folder = `${stack.folder}/copy`;
  for (const key of await keysBelow(stack, tablePrefix('media'))) {
    await mkdir(`${folder}/${key.slice(0, key.lastIndexOf('/'))}`, { recursive: true });
    expect(await files.getFile(key, `${folder}/${key}`, never)).toMatchObject({ ok: true, value: true });
  }
  const sql = 'select count(*) as n, min(app) as app, min(dt) is not null as dated from media';
  const result = await stack.command(['query', sql, '--local', folder, '--json'], { env: { ARCHIVE_BUCKET: '' } });
  expect(result.rows()).toEqual([{ n: 3, app: APP_ID, dated: true }]);
});

test.each([
  ['selec 1', 'syntax error'],
  ["select * from read_csv('/etc/passwd')", 'file system operations are disabled'],
  ['create table t (a int)', 'only queries are run'],
])('refuses %j as wrong usage, in one word of DuckDB', async (sql, said) => {
  const result = await stack.command(['query', sql]);
  expect(result.code).toBe(2);
  expect(result.stdout).toBe('');
  expect(result.stderr.toLowerCase()).toContain(said.toLowerCase());
  expect(result.stderr).not.toContain('    at ');
});

test('says what it needs where there is neither bucket nor copy', async () => {
  const result = await stack.command(['query', 'select 1 from media'], { env: { ARCHIVE_BUCKET: '' } });
  expect(result).toMatchObject({ code: 2, stderr: 'set ARCHIVE_BUCKET, or name a copy with --local\n' });
});

test('leaves nothing behind on disk', async () => {
  const env = { CATALOG_FOLDER: stack.folder };
  const before = await readdir(stack.folder);
  await stack.command(['query', 'select * from media'], { env });
  await stack.command(['query', 'selec'], { env });
  expect(await readdir(stack.folder)).toEqual(before);
});
