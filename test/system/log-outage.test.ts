import { execFile } from 'node:child_process';
import { closeSync, constants, openSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test, vi } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { eventually } from '../support/eventually.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { jobOf, openStack, type Stack, untilIdle } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const run = promisify(execFile);

/** Starts a worker that nobody hears, and resolves when it is ready to work. */
async function startUnheard(stack: Stack, stderr?: number): Promise<WorkerProcess> {
  const port = await freePort();
  const worker = stack.worker({ METRICS_PORT: String(port), LOG_LEVEL: 'trace' }, stderr);
  const ready = (): Promise<boolean> => fetch(`http://127.0.0.1:${port}/readyz`).then(({ ok }) => ok);
  await eventually(async () => ((await ready().catch(() => false)) ? true : undefined));
  return worker;
}

/** Two workers save all there is and bury the rest, without a log, and stop when they are told to. */
async function expectWorkDone(stack: Stack, workers: readonly WorkerProcess[]): Promise<void> {
  const saved = stack.addMedia(240, { sizeBytes: 2_000 });
  const dead = stack.addMedia(40);
  for (const { mediaId } of dead)
    stack.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 } });
  for (const { mediaId } of saved.slice(0, 40))
    stack.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'truncate' }, times: 1 });
  await stack.queue.door.admit([...saved, ...dead].map(jobOf));
  await untilIdle(stack);
  for (const { process: child } of workers) child.kill('SIGTERM');
  expect(await Promise.all(workers.map(({ exited }) => exited))).toEqual([0, 0]);
  await expectEachEndedOnce(stack, { saved, dead, workers });
}

test('workers whose log goes to a full disk do all their work, and end when they are told to', async () => {
  await using stack = await openStack();
  const full = openSync('/dev/full', 'w');
  const workers = [await startUnheard(stack, full), await startUnheard(stack, full)];
  closeSync(full);
  await expectWorkDone(stack, workers);
});

test('workers whose log goes to a pipe that nobody reads do all their work, and end when they are told to', async () => {
  await using stack = await openStack();
  const path = join(stack.folder, 'unread');
  await run('mkfifo', [path]);
  // Both ends in one, so that it can be opened at all: it takes 64 KiB and no more.
  const unread = openSync(path, constants.O_RDWR);
  const workers = [await startUnheard(stack, unread), await startUnheard(stack, unread)];
  await expectWorkDone(stack, workers);
  closeSync(unread);
});

test('workers whose log goes to a pipe whose reader has gone do all their work, and end when they are told to', async () => {
  await using stack = await openStack();
  const workers = [await startUnheard(stack), await startUnheard(stack)];
  for (const { process: child } of workers) child.stderr?.destroy();
  await expectWorkDone(stack, workers);
});
