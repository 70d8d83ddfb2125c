import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runTool, type ToolEnd } from '../../src/derive/run-tool.ts';
import { MINUTE } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { isAlive, type OwnFolder, ownFolder } from '../support/ffmpeg.ts';

const never = new AbortController().signal;
let folder: OwnFolder;

beforeEach(async () => {
  folder = await ownFolder();
});
afterEach(async () => {
  await folder[Symbol.asyncDispose]();
});

async function runScript(script: string, timeoutMs = MINUTE, signal = never): Promise<ToolEnd> {
  const path = await folder.write('tool', `#!/bin/sh\n${script}\n`, 0o700);
  return runTool({ command: [path, 'two words', '$HOME'], folder: folder.path, timeoutMs }, signal);
}

/** The ids that a script has written. */
async function pidsIn(name: string): Promise<number[]> {
  const text = await readFile(join(folder.path, name), 'utf8').catch(() => '');
  return text.split('\n').filter(Boolean).map(Number);
}

/** Hangs, and has a child that hangs as well. */
const HANG = 'sleep 1000 & echo $$ $! | tr " " "\\n" > pids.tmp; mv pids.tmp pids; wait';

test('tells how a tool ended and what it said, in one line', async () => {
  expect(await runScript('echo "one\n\u001b[31mtwo"; exit 3')).toEqual({ end: 'exited', code: 3, said: 'one [31mtwo' });
  expect(await runScript('kill -SEGV $$')).toMatchObject({ end: 'killed', signal: 'SIGSEGV' });
  const absent = runTool({ command: [join(folder.path, 'absent')], folder: folder.path, timeoutMs: MINUTE }, never);
  expect(await absent).toMatchObject({ end: 'not-started' });
});

test('gives a tool its arguments as they are, its folder, no input and none of our environment', async () => {
  process.env['DERIVE_TEST_SECRET'] = 'top secret';
  try {
    const { said } = await runScript('echo "<$1> <$2> $PWD <$(cat)>"; env');
    expect(said).toContain(`<two words> <$HOME> ${folder.path} <>`);
    expect(said).not.toContain('top secret');
    expect(said.match(/\b[A-Za-z_]+=/g)?.toSorted()).toEqual(['LC_ALL=', 'PATH=', 'PWD=']);
  } finally {
    delete process.env['DERIVE_TEST_SECRET'];
  }
});

test('keeps no more than the end of what a tool says', async () => {
  const { said } = await runScript('head -c 5000000 /dev/zero | tr "\\0" x >&2; echo the end');
  expect(said.length).toBeLessThanOrEqual(16_000);
  expect(said).toMatch(/the end$/);
});

test('kills a tool that hangs, and what it has started', async () => {
  expect(await runScript(HANG, 500)).toMatchObject({ end: 'too-slow' });
  const pids = await pidsIn('pids');
  expect(pids).toHaveLength(2);
  await eventually(() => (pids.some(isAlive) ? undefined : true));
});

test('kills them when it is aborted, and only then says so', async () => {
  const stop = new AbortController();
  const running = runScript(HANG, MINUTE, stop.signal);
  const pids = await eventually(async () => {
    const found = await pidsIn('pids');
    return found.length === 2 ? found : undefined;
  });
  stop.abort(new Error('enough'));
  await expect(running).rejects.toThrow('enough');
  expect(isAlive(pids[0] ?? 0)).toBe(false);
  await eventually(() => (pids.some(isAlive) ? undefined : true));
});

test('starts nothing once it is aborted', async () => {
  await expect(runScript('touch started', MINUTE, AbortSignal.abort(new Error('before')))).rejects.toThrow('before');
  expect(await folder.names()).toEqual(['tool']);
});

test('is not held up by a process that got away with its pipes', async () => {
  const started = performance.now();
  try {
    expect(await runScript('setsid sleep 60 & echo $! > got-away; sleep 60', 500)).toMatchObject({ end: 'too-slow' });
    expect(performance.now() - started).toBeLessThan(30_000);
  } finally {
    for (const pid of await pidsIn('got-away')) if (isAlive(pid)) process.kill(pid, 'SIGKILL');
  }
});
