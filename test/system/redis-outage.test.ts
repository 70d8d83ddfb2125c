import { expect, test, vi } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { eventually } from '../support/eventually.ts';
import {
  healthUrl,
  jobOf,
  keysBelow,
  lettersOf,
  logLines,
  notArchived,
  openJobs,
  openStack,
  type Stack,
  untilIdle,
} from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const options = { ownRedis: true, env: { WORKER_LOCK_SECONDS: '2', WORKER_CONCURRENCY: '6' } };

function addSlowMedia(stack: Stack, count: number): SimulatedMedia[] {
  stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 8_000, everyMs: 60 } });
  return stack.addMedia(count, { sizeBytes: 60_000 });
}

async function untilSomeAreDone(stack: Stack, left: number): Promise<void> {
  await eventually(async () => ((await openJobs(stack)) <= left ? true : undefined));
}

async function untilReady({ queue }: Stack): Promise<void> {
  await eventually(() => (queue.redis.status === 'ready' ? true : undefined));
}

async function expectAllSaved(
  stack: Stack,
  media: readonly SimulatedMedia[],
  workers: readonly WorkerProcess[],
): Promise<void> {
  await untilIdle(stack, 120_000);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(media.length);
  expect(await lettersOf(stack)).toEqual([]);
  const said = workers.flatMap((worker) => logLines(worker, 'archived"').map(({ mediaId }) => mediaId));
  expect(said).toHaveLength(new Set(said).size);
  for (const { process: child } of workers) expect(child.exitCode ?? child.signalCode).toBe(null);
}

test('workers outlive a Redis that is stopped in the middle and started again on its data, twice', async () => {
  await using stack = await openStack(options);
  const media = addSlowMedia(stack, 120);
  const workers = [stack.worker(), stack.worker()];
  await stack.queue.door.admit(media.map(jobOf));
  for (const left of [90, 50]) {
    await untilSomeAreDone(stack, left);
    const errors = workers.map((worker) => logLines(worker, 'Redis connection error').length);
    await stack.redisServer().stop();
    await eventually(() =>
      workers.every((worker, index) => logLines(worker, 'Redis connection error').length > (errors[index] ?? 0))
        ? true
        : undefined,
    );
    await stack.restartRedis();
    await untilReady(stack);
  }
  await expectAllSaved(stack, media, workers);
});

test('workers outlive a Redis that is killed outright', async () => {
  await using stack = await openStack(options);
  const media = addSlowMedia(stack, 60);
  const workers = [stack.worker(), stack.worker()];
  await stack.queue.door.admit(media.map(jobOf));
  await untilSomeAreDone(stack, 45);
  const { process: child } = stack.redisServer();
  child.kill('SIGKILL');
  await eventually(() => (child.signalCode === null ? undefined : true));
  await stack.restartRedis();
  await untilReady(stack);
  await expectAllSaved(stack, media, workers);
});

test('a Redis that is frozen for longer than a lock lasts costs the running attempts and nothing else', async () => {
  await using stack = await openStack(options);
  const hanging = stack.addMedia(4);
  for (const { mediaId } of hanging)
    stack.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'hang', where: 'body' } });
  const media = addSlowMedia(stack, 60);
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  await stack.queue.door.admit([...hanging, ...media].map(jobOf));
  await eventually(() =>
    hanging.every(({ mediaId }) => stack.simulator.counts.media.has(mediaId)) ? true : undefined,
  );
  const { process: redis } = stack.redisServer();
  redis.kill('SIGSTOP');
  // Nobody says so but the workers' own clocks.
  await eventually(() =>
    workers.some((worker) => logLines(worker, 'left to another worker').length > 0) ? true : undefined,
  );
  const health = await Promise.all(workers.map((worker) => fetch(`${healthUrl(worker)}/healthz`)));
  expect(health.map(({ status }) => status)).toEqual([200, 200]);
  stack.simulator.disarm();
  redis.kill('SIGCONT');
  await expectAllSaved(stack, [...hanging, ...media], workers);
});

test('a Redis that has lost everything costs the schedule only: what is handed in again is found in the bucket', async () => {
  await using stack = await openStack(options);
  const media = stack.addMedia(20);
  const worker = stack.worker();
  await stack.queue.door.admit(media.map(jobOf));
  await untilIdle(stack);
  const before = await keysBelow(stack, '');
  await stack.redis.flushall();
  expect(await stack.queue.door.admit(media.map(jobOf))).toMatchObject({ accepted: media.length });
  await expectAllSaved(stack, media, []);
  expect(await keysBelow(stack, '')).toEqual(before);
  expect(worker.process.exitCode).toBe(null);
});
