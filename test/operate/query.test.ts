import { spawn } from 'node:child_process';
import { mkdir, readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { tablePrefix } from '../../src/catalog/catalog-keys.ts';
import { cliPath } from '../../src/demo/worker-process.ts';
import { DAY, iso } from '../../src/time.ts';
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
  ['create table t (a int)', 'one SELECT is expected'],
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

test.each([
  [['--copy', 'a', '--local', 'b'], '--copy or --local, not both'],
  [['--since', '2026-06-15', '--until', '2026-06-14'], '--since is after --until'],
  [['--local', '/var/empty'], '/var/empty holds no catalog: catalog/media/dt=… is expected in it'],
  [['--app', 'x'], '"wx" and 16 hexadecimal digits are expected'],
])('%j is wrong usage', async (options, said) => {
  const result = await stack.command(['query', 'select count(*) from media', ...options]);
  expect(result).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining(said) });
});

test('a copy is kept and used again, and the bucket is left as it is', async () => {
  const copy = join(stack.folder, 'kept');
  const before = await Array.fromAsync(filesOf(stack).list('', never));
  const sql = 'select media_id from media order by media_id';
  const first = await stack.command(['query', sql, '--copy', copy, '--json']);
  expect(first.rows()).toHaveLength(3);
  const times = await timesIn(copy);
  expect(times.length).toBeGreaterThan(0);
  const second = await stack.command(['query', sql, '--copy', copy, '--json']);
  expect(second).toEqual({ ...first, rows: second.rows });
  expect(await timesIn(copy)).toEqual(times);
  const local = await stack.command(['query', sql, '--local', copy, '--json'], { env: { ARCHIVE_BUCKET: '' } });
  expect(local.rows()).toEqual(first.rows());
  expect(await Array.fromAsync(filesOf(stack).list('', never))).toEqual(before);
});

test('days and an account leave out the others, in the bucket and in a copy', async () => {
  const [copy, sql] = [join(stack.folder, 'some'), 'select count(*) as n from media'];
  await stack.command(['query', 'select (from media limit 1), (from accepted limit 1) from media', '--copy', copy]);
  await stack.command(['query', sql, '--copy', copy]);
  const other = 'wxfedcba9876543210';
  const today = iso(Date.now()).slice(0, 10);
  const choices: readonly [readonly string[], number][] = [
    [['--since', '2d'], 3],
    [['--until', iso(Date.now() - 2 * DAY).slice(0, 10)], 0],
    [['--since', '2d', '--until', today, '--app', APP_ID], 3],
    [['--app', other], 0],
  ];
  for (const [options, n] of choices) {
    for (const where of [[], ['--local', copy]]) {
      const result = await stack.command(['query', sql, '--json', ...options, ...where]);
      expect(result.rows(), options.join(' ')).toEqual([{ n }]);
    }
  }
  const accepted = await stack.command(['query', 'select count(*) as n from accepted', '--json', '--app', other]);
  expect(accepted.rows()).toEqual([{ n: 0 }]);
});

describe('an answer', () => {
  test('is cut for people, who are told, and whole in JSON', async () => {
    const sql = "select range as n, 'a\nb' as t, null as nothing from range(100000)";
    const [text, json] = await Promise.all([stack.command(['query', sql]), stack.command(['query', sql, '--json'])]);
    const lines = text.stdout.trimEnd().split('\n');
    expect(lines).toHaveLength(1_001);
    expect(lines[1]).toMatch(/^ +0 +a b +-$/);
    expect(text).toMatchObject({ code: 0, stderr: 'only the first 1000 rows: --json gives all\n' });
    expect(json.rows()).toHaveLength(100_000);
    expect(json).toMatchObject({ code: 0, stderr: '' });
  });

  test('that breaks off fails, with the reason of DuckDB', async () => {
    const sql = "select case when range = 1000000 then error('spoilt row') else range end as n from range(2000000)";
    const result = await stack.command(['query', sql, '--json']);
    expect(result).toMatchObject({ code: 2, stderr: 'Invalid Input Error: spoilt row\n' });
    expect(result.rows().length).toBeGreaterThan(0);
  });

  test('for which memory does not do fails, and is not called wrong usage', async () => {
    const result = await stack.command(['query', 'select list(range) from range(100000000)']);
    expect(result).toMatchObject({ code: 1, stdout: '', stderr: expect.stringMatching(/^Out of Memory Error/) });
    expect(result.stderr).not.toContain('    at ');
  });

  test('has as many columns as the query, also where two have one name', async () => {
    const result = await stack.command(['query', 'select 1 as a, 2 as a, map {} as m', '--json']);
    expect(result.stdout).toBe('{"a":1,"a_1":2,"m":{}}\n');
  });
});

describe('leaves nothing behind on disk', () => {
  const endless = 'select count(*) from range(10000000) a, range(10000000) b where a.range + b.range = -1';

  test.each(['SIGTERM', 'SIGINT'] as const)('when %s ends it, soon', async (signal) => {
    const { child, folder, ended } = await start(endless);
    await eventually(async () => ((await readdir(folder)).length > 0 ? true : undefined));
    child.kill(signal);
    expect(await ended).toBe(1);
    expect(await readdir(folder)).toEqual([]);
  });

  test('when nobody reads its rows any more', async () => {
    const { child, folder, ended } = await start('select range, repeat(range::varchar, 20) from range(10000000)');
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.stdout.destroy();
    expect(await ended).toBe(1);
    expect(await readdir(folder)).toEqual([]);
  });

  test('and holds back while its reader is slow', async () => {
    const { child, ended } = await start('select range, repeat(range::varchar, 100) as t from range(3000000)');
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.stdout.pause();
    // More than a minute's work would fill the memory by far.
    const used = async (): Promise<number> =>
      Number(/VmRSS:\s+(\d+)/.exec(await readFile(`/proc/${child.pid}/status`, 'utf8'))?.[1]) / 1024;
    let [last, calm] = [0, 0];
    await eventually(async () => {
      const now = await used();
      calm = Math.abs(now - last) < 1 ? calm + 1 : 0;
      last = now;
      return calm > 20 ? true : undefined;
    });
    expect(last).toBeLessThan(600);
    child.kill('SIGTERM');
    child.stdout.destroy();
    await ended;
  });

  async function start(sql: string) {
    const folder = join(stack.folder, crypto.randomUUID());
    await mkdir(folder);
    const child = spawn(process.execPath, [cliPath(), 'query', '--json', sql], {
      env: { ...stack.environment, CATALOG_FOLDER: folder },
      cwd: stack.folder,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    const { promise: ended, resolve } = Promise.withResolvers<number | null>();
    child.once('close', (code) => resolve(code));
    return { child, folder, ended };
  }
});

/** When each file in a folder was last written, by its inode. */
async function timesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const facts = await Promise.all(files.map((path) => stat(path)));
  return facts.map(({ ino, mtimeMs }) => `${ino} ${mtimeMs}`).toSorted();
}

test('leaves nothing behind on disk', async () => {
  const env = { CATALOG_FOLDER: stack.folder };
  const before = await readdir(stack.folder);
  await stack.command(['query', 'select * from media'], { env });
  await stack.command(['query', 'selec'], { env });
  expect(await readdir(stack.folder)).toEqual(before);
});
