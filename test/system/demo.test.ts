import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, readlink, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { demo } from '../../src/demo/demo.ts';
import { cliPath } from '../../src/demo/worker-process.ts';
import { createOutput } from '../../src/operate/output.ts';
import { eventually } from '../support/eventually.ts';
import { runCommand } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

/** The temporary folder of the system, as the demo sees it. */
let temporary: string;

beforeEach(async () => {
  temporary = await mkdtemp(join(tmpdir(), 'weixin-media-demo-test-'));
  vi.stubEnv('TMPDIR', temporary);
});

afterEach(async () => {
  vi.unstubAllEnvs();
  await rm(temporary, { recursive: true, force: true, maxRetries: 5 });
});

/** The processes that work in the temporary folder, or were told of it. */
async function processesOfDemo(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name) && name !== String(process.pid));
  const found = await Promise.all(
    pids.map(async (pid) => {
      const [folder, environment] = await Promise.all([
        readlink(`/proc/${pid}/cwd`).catch(() => ''),
        readFile(`/proc/${pid}/environ`, 'utf8').catch(() => ''),
      ]);
      return folder.startsWith(temporary) || environment.includes(temporary) ? [pid] : [];
    }),
  );
  return found.flat();
}

test('the demo ends with 0 and every number as it must be, and leaves a folder alone that is not its own', async () => {
  const cwd = join(temporary, 'cwd');
  await mkdir(join(cwd, '.demo'), { recursive: true });
  await writeFile(join(cwd, '.demo', 'mine'), 'a file of the user');
  const { code, rows, stderr } = await runCommand(['demo', '--json'], { cwd, env: { TMPDIR: temporary } });

  expect(stderr).not.toContain('not as expected');
  expect(rows()).toEqual([
    {
      enqueued: 278,
      duplicates: 20,
      archived: 267,
      deadLettered: { 'invalid-media-id': 6, 'media-expired': 5 },
      retries: 12,
      tokenRefreshes: 3,
      bytes: expect.any(Number),
      verified: 267,
      seconds: expect.any(Number),
    },
  ]);
  expect(code).toBe(0);
  const [, folder = ''] = /^everything lies in (.+)$/m.exec(stderr) ?? [];
  expect(folder.startsWith(temporary)).toBe(true);
  const left = await readdir(join(folder, 'archive'), { recursive: true });
  expect(left.some((path) => path.includes('dead-letters'))).toBe(true);
  expect(await readdir(cwd, { recursive: true })).toEqual(['.demo', '.demo/mine']);
  expect(await processesOfDemo()).toEqual([]);
});

const INTERRUPTIONS: readonly [string, boolean, NodeJS.Signals, number][] = [
  ['Ctrl-C in a terminal, which reaches its children too', true, 'SIGINT', 130],
  ['SIGINT', false, 'SIGINT', 130],
  ['SIGTERM', false, 'SIGTERM', 143],
  ['a terminal that is closed', true, 'SIGHUP', 129],
];

test.each(INTERRUPTIONS)('%s ends the demo and all that it started, with one line', async (_, group, signal, code) => {
  const child = spawn(process.execPath, [cliPath(), 'demo'], {
    env: { TMPDIR: temporary },
    cwd: '/',
    // A process group of its own, as under a shell.
    detached: true,
  });
  const texts = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].on('data', (chunk: Buffer) => {
      texts[stream] += chunk.toString();
    });
  }
  const closed = once(child, 'close');
  // Itself, redis-server and two workers.
  await eventually(async () => ((await processesOfDemo()).length === 4 ? true : undefined));

  process.kill(group ? -(child.pid ?? 0) : (child.pid ?? 0), signal);
  expect(await closed).toEqual([code, null]);
  expect(texts.stdout).toBe('');
  const lines = texts.stderr
    .split('\n')
    .filter((line) => line !== '' && !/ExperimentalWarning|trace-warnings/.test(line));
  expect(lines).toEqual([`interrupted by ${signal}: everything that was started has ended`]);
  expect(await processesOfDemo()).toEqual([]);
  expect(await readdir(temporary)).toEqual([]);
});

test('a second Ctrl-C ends all at once', async () => {
  const child = spawn(process.execPath, [cliPath(), 'demo'], { env: { TMPDIR: temporary }, cwd: '/', stdio: 'ignore' });
  const closed = once(child, 'close');
  const running = await eventually(async () => {
    const pids = await processesOfDemo();
    return pids.length === 4 ? pids : undefined;
  });
  // A worker that hears nothing would keep the first one waiting.
  for (const pid of running) if (pid !== String(child.pid)) process.kill(Number(pid), 'SIGSTOP');
  child.kill('SIGINT');
  await eventually(() => child.kill('SIGINT') === false || child.exitCode !== null || undefined);
  expect(await closed).toEqual([130, null]);
  await eventually(async () => ((await processesOfDemo()).length === 0 ? true : undefined));
});

test('when the time is up it shows what is there and what must be, and ends with 1', async () => {
  const texts = { stdout: '', stderr: '' };
  const write = (stream: 'stdout' | 'stderr') => (text: string) => {
    texts[stream] += text;
  };
  const streams = {
    stdout: { write: write('stdout') },
    stderr: { write: write('stderr') } as unknown as NodeJS.WriteStream,
  };
  expect(await demo({ keep: false, limitMs: 0 }, createOutput(false, streams))).toBe(1);
  expect(texts.stdout).toMatch(/^ +is +must be\nmedia enqueued +278 +278\n/);
  expect(texts.stdout).toMatch(/^verified by SHA-256 +\d+ +267$/m);
  expect(texts.stderr).toContain('not done within 0 s\n');
  expect(await processesOfDemo()).toEqual([]);
});
