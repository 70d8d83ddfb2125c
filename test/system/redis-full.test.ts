import { expect, test, vi } from 'vitest';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { createMediaProducer, QueueUnavailableError } from '../../src/index.ts';
import { eventually } from '../support/eventually.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import {
  healthUrl,
  jobOf,
  logLines,
  openJobs,
  openStack,
  type Stack,
  untilIdle,
  writeLines,
} from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const FULL = 'OOM command not allowed';

async function usedBytes({ redis }: Stack): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
}

/** Gives Redis so much memory beyond what it uses now; 0 takes every limit away. */
async function giveMemory(stack: Stack, spareBytes: number): Promise<void> {
  const limit = spareBytes === 0 ? 0 : (await usedBytes(stack)) + spareBytes;
  await stack.redis.config('SET', 'maxmemory', String(limit));
}

/** How often a worker was told that Redis is full, in one place. */
function refusals(worker: WorkerProcess, where: string): number {
  return logLines(worker, 'unexpected fault').filter((line) => {
    return line['where'] === where && JSON.stringify(line).includes(FULL);
  }).length;
}

test('workers that meet a full Redis again and again, in the middle of whatever, lose nothing and do nothing twice', async () => {
  await using stack = await openStack({ ownRedis: true, env: { WORKER_LOCK_SECONDS: '2', WORKER_CONCURRENCY: '8' } });
  const { simulator } = stack;
  simulator.arm({ endpoint: 'media', action: { type: 'truncate' }, every: 9 });
  const saved = stack.addMedia(240, { sizeBytes: 5_000 });
  const dead = stack.addMedia(60);
  for (const { mediaId } of dead)
    simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 } });
  // So that some are always under way.
  simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 1_000, everyMs: 50 } });
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  const mixed = saved.flatMap((media, index) => [media, ...dead.slice(index, index + 1)]);
  await stack.queue.door.admit(mixed.map(jobOf));

  for (const left of [260, 170, 80]) {
    await eventually(async () => ((await openJobs(stack)) <= left ? true : undefined));
    const before = workers.map((worker) => refusals(worker, 'settle'));
    // Below what it uses: nothing more is taken, whatever is removed.
    await giveMemory(stack, -100_000);
    await eventually(() =>
      workers.some((worker, index) => refusals(worker, 'settle') > (before[index] ?? 0)) ? true : undefined,
    );
    const health = await Promise.all(workers.map((worker) => fetch(`${healthUrl(worker)}/healthz`)));
    expect(health.map(({ status }) => status)).toEqual([200, 200]);
    await giveMemory(stack, 0);
  }
  await untilIdle(stack, 90_000);
  for (const { process: child } of workers) expect(child.exitCode ?? child.signalCode).toBe(null);
  await expectEachEndedOnce(stack, { saved, dead, workers });
});

test('workers on a Redis with hardly any room left get everything done in it', async () => {
  await using stack = await openStack({ ownRedis: true, env: { WORKER_LOCK_SECONDS: '2', WORKER_CONCURRENCY: '8' } });
  const saved = stack.addMedia(300, { sizeBytes: 5_000 });
  await stack.queue.door.admit(saved.map(jobOf));
  // Enough for what two workers need for themselves, and so little that they know that there is hardly any.
  await giveMemory(stack, 1_000_000);
  const workers = [stack.worker(), stack.worker()];
  await eventually(() => (workers.every((worker) => logLines(worker, 'archived"').length > 0) ? true : undefined));
  await giveMemory(stack, 20_000);
  await untilIdle(stack, 90_000);
  await giveMemory(stack, 0);
  await expectEachEndedOnce(stack, { saved, workers });
});

test('a full Redis is told to whoever hands media in, which takes none of them by halves', async () => {
  await using stack = await openStack({ ownRedis: true });
  const media = stack.addMedia(300);
  const jobs = media.map(jobOf);
  await using parts = new AsyncDisposableStack();
  const producer = createMediaProducer({ redisUrl: stack.redisServer().url });
  parts.defer(() => producer.close());
  const [first, ...rest] = jobs;
  if (first === undefined) throw new Error('no media');
  expect(await producer.enqueue(first)).toBe('accepted');
  const file = await writeLines(stack, jobs);

  await giveMemory(stack, -100_000);
  await expect(producer.enqueueMany(rest)).rejects.toThrow(QueueUnavailableError);
  const refused = await stack.command(['enqueue', '--file', file]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain(FULL);
  expect(await openJobs(stack)).toBe(1);

  // Full in the middle of a call: some are in, and whole.
  await giveMemory(stack, 100_000);
  await expect(producer.enqueueMany(rest)).rejects.toThrow(QueueUnavailableError);
  const taken = await openJobs(stack);
  expect(taken).toBeGreaterThan(1);
  expect(taken).toBeLessThan(jobs.length);

  await giveMemory(stack, 0);
  expect(await producer.enqueueMany(jobs)).toEqual({
    accepted: jobs.length - taken,
    duplicates: taken,
    rejected: [],
  });
  const workers = [stack.worker(), stack.worker()];
  await untilIdle(stack);
  await expectEachEndedOnce(stack, { saved: media, workers });
});
