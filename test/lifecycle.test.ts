import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { expect, test } from 'vitest';

const lifecycle = JSON.stringify(new URL('../src/lifecycle.ts', import.meta.url).href);

/** Runs a program that may import what it needs of `lifecycle`, and returns what it has written to stdout. */
async function output(channel: 'ipc' | 'ignore', code: string): Promise<string> {
  const program = `import { stopWithParent, tellParentReady } from ${lifecycle}; ${code}`;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', program], {
    stdio: ['ignore', 'pipe', 'inherit', channel],
  });
  if (child.stdout === null) throw new Error('no stdout');
  if (channel === 'ipc') child.disconnect();
  return text(child.stdout);
}

const UNTIL_GONE = 'while (process.connected) await new Promise(setImmediate);';

test('a parent that was gone before anybody listened is a reason to stop', async () => {
  const code = `${UNTIL_GONE} console.log(stopWithParent().signal.aborted)`;
  expect(await output('ipc', code)).toBe('true\n');
});

test('a process without a channel to its parent is not stopped by it, and ends by itself', async () => {
  expect(await output('ignore', 'console.log(stopWithParent().signal.aborted)')).toBe('false\n');
});

test.each(['ipc', 'ignore'] as const)('that nobody hears that it is ready does no harm (%s)', async (channel) => {
  expect(
    await output(channel, `${UNTIL_GONE} tellParentReady(); await new Promise(setImmediate); console.log('well')`),
  ).toBe('well\n');
});
