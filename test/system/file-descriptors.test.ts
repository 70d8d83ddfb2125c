import { execFile } from 'node:child_process';
import { readdir } from 'node:fs/promises';
import { promisify } from 'node:util';
import { expect, test, vi } from 'vitest';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { eventually } from '../support/eventually.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { healthUrl, jobOf, logLines, openStack, untilIdle } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const run = promisify(execFile);

/** Below what a worker has open: whatever it opens from now on fails with EMFILE. */
const NONE_LEFT = 10;
const PLENTY = 1_024;

/** Sets how many files a running process may have open. Those that are open stay so. */
async function limitFiles({ process: child }: WorkerProcess, count: number): Promise<void> {
  await run('prlimit', [`--pid=${child.pid}`, `--nofile=${count}:`]).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error;
    throw new Error('prlimit is needed and was not found: it is part of util-linux');
  });
}

async function openFiles({ process: child }: WorkerProcess): Promise<number> {
  return (await readdir(`/proc/${child.pid}/fd`)).length;
}

test('workers that run out of file descriptors in the middle, Redis and all, go on once there are some again', async () => {
  await using stack = await openStack({ ownRedis: true, env: { WORKER_CONCURRENCY: '8', WORKER_LOCK_SECONDS: '2' } });
  const { simulator } = stack;
  // Each broken body costs a socket, so that none of the old ones is left after a while.
  simulator.arm({ endpoint: 'media', action: { type: 'truncate' }, every: 10 });
  const saved = stack.addMedia(240, { sizeBytes: 30_000 });
  const dead = stack.addMedia(20);
  for (const { mediaId } of dead)
    simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 } });
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  await stack.queue.door.admit(saved.map(jobOf));
  await eventually(() => (workers.every((worker) => logLines(worker, 'archived"').length >= 10) ? true : undefined));

  for (const worker of workers) {
    expect(await openFiles(worker)).toBeGreaterThan(NONE_LEFT);
    await limitFiles(worker, NONE_LEFT);
  }
  await Promise.all(workers.map((worker) => worker.said('EMFILE')));
  // Whoever asks how they are now is turned away, or waits.
  const asked = workers.map((worker) => fetch(`${healthUrl(worker)}/healthz`).catch(() => undefined));
  const errors = workers.map((worker) => logLines(worker, 'Redis connection error').length);
  await stack.redis.call('CLIENT', 'KILL', 'TYPE', 'normal', 'SKIPME', 'yes');
  await eventually(() =>
    workers.every((worker, index) => logLines(worker, 'Redis connection error').length > (errors[index] ?? 0) + 2)
      ? true
      : undefined,
  );
  for (const worker of workers) await limitFiles(worker, PLENTY);
  await Promise.all(asked);

  await eventually(() => (stack.queue.redis.status === 'ready' ? true : undefined));
  await stack.queue.door.admit(dead.map(jobOf));
  await untilIdle(stack, 90_000);
  for (const worker of workers) {
    expect((await fetch(`${healthUrl(worker)}/readyz`)).status).toBe(200);
    await worker.stop();
    expect(worker.process.exitCode).toBe(0);
  }
  await expectEachEndedOnce(stack, { saved, dead, workers });
});
