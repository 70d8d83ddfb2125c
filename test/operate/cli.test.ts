import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import { cliPath } from '../../src/demo/worker-process.ts';
import { VERSION } from '../../src/version.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, APP_SECRET, testJob } from '../support/jobs.ts';
import { openOwnRedis } from '../support/own-redis.ts';
import { type CommandResult, openStack, runCommand, type Stack, writeLines } from '../support/stack.ts';

const COMMANDS = [
  ['demo'],
  ['worker'],
  ['enqueue'],
  ['status'],
  ['show'],
  ['doctor'],
  ['dead-letters', 'list'],
  ['dead-letters', 'show'],
  ['dead-letters', 'replay'],
  ['dead-letters', 'discard'],
  ['dead-letters', 'rebuild'],
  ['catalog', 'rebuild'],
  ['catalog'],
  ['query'],
  ['gaps'],
  ['verify'],
  ['export'],
  ['erase'],
  ['derive'],
] as const;

/** What each command needs behind its name. */
const ARGUMENTS: Readonly<Record<string, readonly string[]>> = {
  enqueue: [APP_ID, 'abc'],
  show: [APP_ID, 'abc'],
  'dead-letters show': [APP_ID, 'abc'],
  'dead-letters replay': ['--all'],
  'dead-letters discard': ['--all'],
  erase: ['--app', APP_ID, '--media-id', 'abc'],
  query: ['select 1'],
  export: ['--bagit', '/nowhere', '--dt', '2026-06-15'],
};

/** They wait for Redis, or look at it among other things. */
const PATIENT = ['demo', 'worker', 'doctor', 'catalog', 'derive'];
/** They work without it, if need be. */
const WITHOUT_REDIS = ['query', 'gaps', 'verify', 'export'];

const ASKING_REDIS = COMMANDS.map((words) => [...words]).filter(
  ([word]) => ![...PATIENT, ...WITHOUT_REDIS].includes(word ?? ''),
);

let stack: Stack;

beforeAll(async () => {
  stack = await openStack({ env: COMPILE_CACHE });
});

afterAll(() => stack[Symbol.asyncDispose]());

function complete(words: readonly string[]): string[] {
  return [...words, ...(ARGUMENTS[words.join(' ')] ?? [])];
}

function expectNoTrace({ stderr }: CommandResult): void {
  expect(stderr).not.toMatch(/^\s+at /m);
  expect(stderr).not.toContain('unexpected');
}

describe('help', () => {
  let help: Map<string, CommandResult>;

  beforeAll(async () => {
    const results = await Promise.all(
      COMMANDS.map((words) => runCommand([...words, '--help'], { env: COMPILE_CACHE })),
    );
    help = new Map(COMMANDS.map((words, index) => [words.join(' '), results[index] as CommandResult]));
  });

  test('of the program names every command and the exit codes', async () => {
    const { code, stdout, stderr } = await runCommand(['--help']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const [word] of COMMANDS) expect(stdout).toMatch(new RegExp(`^ {2}${word}\\b.*\\w`, 'm'));
    expect(stdout).toContain('Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.');
  });

  test.each(COMMANDS.map((words) => words.join(' ')))(
    'of %s says what it does, on stdout, and explains each option',
    (name) => {
      const { code, stdout, stderr } = help.get(name) as CommandResult;
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      const [usage, , about] = stdout.split('\n');
      expect(usage).toContain(`weixin-media ${name}`);
      expect(about).toMatch(/^[A-Z].*\.$/);
      for (const line of stdout.split('\n').filter((text) => /^ {2}-/.test(text))) {
        expect(line).toMatch(/^ {2}(-\w, )?--[a-z-]+( <\w+(\.\.\.)?>)? +\S.+/);
      }
      expect(stdout).toContain('--json');
    },
  );

  test('knows every option that the README uses', () => {
    const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
    const used = [...readme.matchAll(/npm run -s cli -- ([^#`\n]+)/g)].map(([, text = '']) => text.trim());
    expect(used.length).toBeGreaterThan(8);
    for (const line of used) {
      const name = [...help.keys()].find((known) => line === known || line.startsWith(`${known} `));
      expect(name, line).toBeDefined();
      const { stdout } = help.get(name ?? '') as CommandResult;
      for (const [option] of line.matchAll(/--[a-z-]+/g)) expect(stdout, line).toContain(option);
    }
  });
});

test('a media_id that begins with a dash goes behind --, and whoever forgets is told', async () => {
  const [bare, behind] = await Promise.all([
    stack.command(['show', APP_ID, '-Xabc', '--json']),
    stack.command(['show', '--json', APP_ID, '--', '-Xabc']),
  ]);
  expect(bare).toMatchObject({ code: 2, stdout: '', stderr: expect.stringContaining('goes behind --') });
  expect(behind).toMatchObject({ code: 1, stdout: '', stderr: `nothing is known of ${APP_ID} -Xabc\n` });
});

test('tells its version', async () => {
  expect(await runCommand(['--version'])).toMatchObject({ code: 0, stdout: `${VERSION}\n`, stderr: '' });
});

test.each([
  [[]],
  [['dead-letters']],
  [['nonsense']],
  [['dead-letters', 'nonsense']],
  [['status', '--nonsense']],
  [['status', 'more']],
  [['show']],
  [['show', APP_ID]],
  [['show', APP_ID, 'abc', 'more']],
  [['dead-letters', 'show', APP_ID]],
  [['enqueue', '--jsno']],
])('%j is wrong usage: exit code 2, told on stderr', async (args) => {
  const result = await stack.command([...args, '--json']);
  expect(result).toMatchObject({ code: 2, stdout: '' });
  expect(result.stderr).toMatch(/^(error: |Usage: weixin-media )/);
  expectNoTrace(result);
});

test.each([
  [['gaps']],
  [['verify']],
  [['catalog', 'rebuild', '--dry-run']],
  [['export', '--bagit', '/nowhere', '--app', APP_ID]],
])('%j of days that end before they begin is wrong usage, and not an answer', async (args) => {
  const result = await stack.command([...args, '--since', '2026-06-16', '--until', '2026-06-15']);
  expect(result).toMatchObject({ code: 2, stdout: '', stderr: '--since is after --until\n' });
});

describe('a wrong configuration', () => {
  test('is told whole, with exit code 2, before anything is done', async () => {
    const env = { WORKER_CONCURRENCY: 'many', REDIS_URL: 'http://:pass-word@x', WEIXIN_APP_SECRT: 'a-misspelt-secret' };
    const commands = COMMANDS.filter(([word]) => word !== 'demo').map((words) => complete(words));
    const results = await Promise.all(commands.map((args) => stack.command([...args, '--json'], { env })));
    for (const result of results) {
      expect(result).toMatchObject({ code: 2, stdout: '' });
      expect(result.stderr).toMatch(/^3 mistakes in the configuration:\n/);
      expect(result.stderr).toContain('did you mean WEIXIN_APP_SECRET?');
      expect(result.stderr).not.toMatch(/pass-word|a-misspelt-secret/);
      expectNoTrace(result);
    }
  });

  test('as .env.example is before it is filled in ends the worker at once', async () => {
    const env = { ARCHIVE_BUCKET: '', WEIXIN_APP_ID: '', WEIXIN_APP_SECRET: '' };
    const result = await stack.command(['worker'], { env });
    expect(result).toMatchObject({ code: 2, stdout: '' });
    expect(result.stderr).toMatch(/ARCHIVE_BUCKET: received nothing/);
    expectNoTrace(result);
  });

  test('comes from a .env file too, which the environment overrides', async () => {
    const cwd = join(stack.folder, 'with-env');
    await mkdir(cwd);
    await writeFile(join(cwd, '.env'), 'LOG_LEVEL=loud\nQUEUE_PREFIX={from-the-file}\n');
    const { REDIS_URL = '' } = stack.environment;
    const [wrong, good] = await Promise.all([
      runCommand(['status', '--json'], { cwd, env: { REDIS_URL } }),
      runCommand(['status', '--json'], { cwd, env: { REDIS_URL, LOG_LEVEL: 'info' } }),
    ]);
    expect(wrong.code).toBe(2);
    expect(wrong.stderr).toContain('LOG_LEVEL: received "loud"');
    expect(good.code).toBe(0);
  });
});

describe('Redis', () => {
  test('that is away, frozen or refuses the password fails a command that asks it, and is told in one line', async () => {
    await using frozen = await openOwnRedis();
    frozen.freeze();
    await using locked = await openOwnRedis();
    await locked.lock('the-right-password');
    const away = `redis://:the-wrong-password@127.0.0.1:${await freePort()}`;
    const cases: [string[], string, string][] = [
      ...ASKING_REDIS.map((words): [string[], string, string] => [complete(words), away, 'connect ECONNREFUSED']),
      [['status'], frozen.url, 'no answer'],
      [['status'], locked.as(':the-wrong-password'), 'WRONGPASS'],
      [['status'], `${inject('redisUrl')}/99`, 'DB index is out of range'],
    ];
    const results = await Promise.all(
      cases.map(([args, REDIS_URL]) => stack.command([...args, '--json'], { env: { REDIS_URL } })),
    );
    for (const [index, result] of results.entries()) {
      expect(result).toMatchObject({ code: 1, stdout: '' });
      expect(result.stderr).toMatch(/^Redis at 127\.0\.0\.1:\d+ can't be reached \(.+\): check REDIS_URL\n$/);
      expect(result.stderr).toContain(cases[index]?.[2]);
      expect(result.stderr).not.toContain('the-wrong-password');
    }
  });

  test('that is full fails enqueue, and nothing is said to be accepted', async () => {
    await using full = await openOwnRedis({ arguments: ['--maxmemory', '1'] });
    const result = await stack.command(['enqueue', APP_ID, 'abc', '--json'], { env: { REDIS_URL: full.url } });
    expect(result).toMatchObject({ code: 1, stdout: '' });
    expect(result.stderr).toMatch(/^Redis refuses: OOM .+\n$/);
  });

  test('that refuses a command fails it, and is told in one line', async () => {
    const commands = ASKING_REDIS.map((words) => complete(words));
    await using own = await openOwnRedis({
      arguments: ['--user', 'app', 'on', '>secret', '~*', '&*', '+@connection', '+info', '+client'],
    });
    const env = { REDIS_URL: own.as('app:secret') };
    const results = await Promise.all(commands.map((args) => stack.command([...args, '--json'], { env })));
    for (const result of results) {
      expect(result).toMatchObject({ code: 1, stdout: '' });
      expect(result.stderr).toMatch(
        // An erasure has its certificate by then.
        /^(?:certificate .+\n)?Redis refuses: NOPERM .+\(The user of REDIS_URL may not do this: give it the right\.\)\n$/,
      );
    }
  });
});

describe('stdout that nobody reads any more', () => {
  test('ends a command without a word on stderr', async () => {
    // More than a pipe holds, so that the command must still be writing.
    const path = await writeLines(
      stack,
      Array.from({ length: 30_000 }, () => 'no job'),
    );
    const child = spawn(process.execPath, [cliPath(), 'enqueue', '--file', path, '--json'], {
      env: { ...stack.environment },
      cwd: stack.folder,
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    const { promise: ended, resolve } = Promise.withResolvers<number | null>();
    child.once('close', (code) => resolve(code));
    const { promise: first, resolve: read } = Promise.withResolvers<Buffer>();
    child.stdout.once('data', read);
    expect(String(await Promise.race([first, ended]))).toMatch(/^\{"rejected":"line 1"/);
    child.stdout.destroy();
    expect(await ended).toBe(1);
    expect(stderr).toBe('');
  });
});

describe('worker', () => {
  test('ends with 1 when its metrics port is taken, with 1 when the bucket is missing, and says what to do', async () => {
    const server = createServer().listen(0, '127.0.0.1');
    const address = await eventually(() => server.address() ?? undefined);
    const port = typeof address === 'object' ? address.port : 0;
    try {
      const [taken, missing] = await Promise.all([
        stack.command(['worker'], { env: { METRICS_PORT: String(port) } }),
        stack.command(['worker'], { env: { ARCHIVE_BUCKET: 'no-such-bucket' } }),
      ]);
      expect(taken).toMatchObject({
        code: 1,
        stdout: '',
        stderr: expect.stringContaining('set METRICS_PORT to a free port'),
      });
      expect(missing).toMatchObject({
        code: 1,
        stdout: '',
        stderr: expect.stringContaining('ARCHIVE_BUCKET does not exist'),
      });
    } finally {
      server.close();
    }
  });

  test('ends with 0 when it is asked to stop, and has logged JSON without a secret', async () => {
    const worker = stack.worker();
    await worker.said('worker started');
    worker.process.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    for (const line of worker.log().trimEnd().split('\n')) expect(JSON.parse(line)).toHaveProperty('msg');
    expect(worker.log()).not.toContain(APP_SECRET);
  });

  test('that Redis refuses keeps asking, and never logs the password', async () => {
    await using locked = await openOwnRedis();
    await locked.lock('the-right-password');
    const worker = stack.worker({ REDIS_URL: locked.as('default:the-wrong-password') });
    await worker.said('WRONGPASS');
    worker.process.kill('SIGTERM');
    expect(await worker.exited).toBe(0);
    expect(worker.log()).not.toContain('the-wrong-password');
  });
});

test('a job that was enqueued is shown, counted and archived, each told on stdout alone', async () => {
  const [media] = stack.addMedia(1);
  if (media === undefined) throw new Error('no media');
  const job = testJob({ mediaId: media.mediaId, receivedAt: new Date(Date.now() - 1_000).toISOString() });
  const input = `${JSON.stringify(job)}\n`;
  expect(await stack.command(['enqueue', '--file', '-'], { input })).toMatchObject({ code: 0, stderr: '' });
  expect((await stack.command(['show', '--json', APP_ID, '--', job.mediaId])).rows()).toMatchObject([
    { state: 'waiting' },
  ]);
  const worker = stack.worker();
  await worker.said('"outcome":"archived"');
  const shown = await stack.command(['show', '--json', APP_ID, '--', job.mediaId]);
  expect(shown.rows()).toMatchObject([
    { state: 'archived', sizeBytes: media.bytes.sizeBytes, contentType: 'image/jpeg' },
  ]);
  expect((await stack.command(['enqueue', '--file', '-', '--json'], { input })).rows()).toMatchObject([
    { duplicates: 1 },
  ]);
});
