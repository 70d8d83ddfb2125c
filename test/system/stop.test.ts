import { describe, expect, test, vi } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { parseStoredJob } from '../../src/queue/stored-job.ts';
import { eventually } from '../support/eventually.ts';
import { INSTALL_TIMEOUT_MS, provideFfmpeg } from '../support/ffmpeg.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { APP_ID } from '../support/jobs.ts';
import {
  jobOf,
  keysBelow,
  lettersOf,
  logLines,
  notArchived,
  openStack,
  type Stack,
  untilIdle,
} from '../support/stack.ts';
import { openS3Door } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const MIB = 1024 * 1024;
const SLOTS = 6;
const env = { WORKER_CONCURRENCY: String(SLOTS), ARCHIVE_PART_SIZE: '5MiB' };

/** Media whose bytes come so slowly that a worker is in the middle of some for a while. */
function addSlowMedia(stack: Stack, count: number): SimulatedMedia[] {
  stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 4_000, everyMs: 50 } });
  return stack.addMedia(count, { sizeBytes: 60_000 });
}

/** Media whose bytes never come, until the simulator is disarmed. */
function addHangingMedia(stack: Stack, count: number): SimulatedMedia[] {
  stack.simulator.arm({ endpoint: 'media', action: { type: 'hang', where: 'body' } });
  return stack.addMedia(count);
}

/** Hands the media in and resolves when a worker has asked for as many of them as it has slots. */
async function begin(stack: Stack, media: readonly SimulatedMedia[], slots = SLOTS): Promise<void> {
  await stack.queue.door.admit(media.map(jobOf));
  await eventually(() => (stack.simulator.counts.media.size >= slots ? true : undefined));
}

async function terminate(worker: WorkerProcess): Promise<number | NodeJS.Signals> {
  worker.process.kill('SIGTERM');
  return worker.exited;
}

function laneCounts({ queue }: Stack): Promise<object> {
  return queue.lanes.lane(laneOf(APP_ID)).counts();
}

/** How many of these media wait in the queue, and how many attempts stand in their records. */
async function waiting(
  { queue }: Stack,
  media: readonly SimulatedMedia[],
): Promise<{ jobs: number; attempts: number }> {
  const found = await Promise.all(
    media.map(jobOf).map((job) => queue.lanes.lane(laneOf(APP_ID)).peek(mediaJobId(job))),
  );
  const stored = found.flatMap((job) => (job === undefined ? [] : [parseStoredJob(job.data)]));
  return {
    jobs: stored.length,
    attempts: stored.reduce((sum, parsed) => sum + (parsed.ok ? parsed.stored.ledger.attempts.length : 1), 0),
  };
}

/** A new worker makes an end of what the stopped ones have left. */
async function expectAllSavedByAnother(stack: Stack, media: readonly SimulatedMedia[]): Promise<void> {
  stack.simulator.disarm();
  stack.worker();
  await untilIdle(stack);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(media.length);
  expect(await lettersOf(stack)).toEqual([]);
}

describe('SIGTERM', () => {
  test('lets the running jobs end, takes no more, leaves the rest in the queue and ends with 0', async () => {
    await using stack = await openStack({ env });
    const media = addSlowMedia(stack, 40);
    const worker = stack.worker();
    await begin(stack, media);
    expect(await terminate(worker)).toBe(0);

    const [stops] = logLines(worker, 'worker stops');
    const after = worker.log().slice(worker.log().indexOf('worker stops'));
    expect(after.split('"msg":"archived"').length - 1).toBe(stops?.['inFlight']);
    expect(logLines(worker, 'put back')).toEqual([]);
    const archived = logLines(worker, 'archived').length;
    expect(await waiting(stack, media)).toEqual({ jobs: media.length - archived, attempts: 0 });
    expect(await laneCounts(stack)).toMatchObject({ active: 0 });
    expect(archived).toBeLessThan(media.length);
    await expectAllSavedByAnother(stack, media);
  });

  test('has what does not end in time put back as it was, nothing used up, and ends with 0', async () => {
    await using stack = await openStack({ env });
    const media = addHangingMedia(stack, 10);
    const worker = stack.worker({ SHUTDOWN_GRACE_SECONDS: '1' });
    await begin(stack, media);
    expect(await terminate(worker)).toBe(0);

    expect(logLines(worker, 'put back')).toHaveLength(SLOTS);
    expect(await waiting(stack, media)).toEqual({ jobs: media.length, attempts: 0 });
    expect(await laneCounts(stack)).toMatchObject({ active: 0 });
    await expectAllSavedByAnother(stack, media);
  });

  test('in the middle of a multipart upload leaves no part of it behind', async () => {
    await using door = await openS3Door();
    await using stack = await openStack({ env, gateway: door.gateway });
    stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 65_536, everyMs: 10 } });
    const media = stack.addMedia(2, { format: 'mp4', sizeBytes: 16 * MIB });
    const worker = stack.worker({ SHUTDOWN_GRACE_SECONDS: '0' });
    await stack.queue.door.admit(media.map(jobOf));
    await eventually(() => (door.openUploads.size === media.length ? true : undefined));
    expect(await terminate(worker)).toBe(0);

    expect([...door.openUploads]).toEqual([]);
    expect(await keysBelow(stack, 'media/')).toEqual([]);
    expect(await waiting(stack, media)).toEqual({ jobs: media.length, attempts: 0 });
    await expectAllSavedByAnother(stack, media);
    expect([...door.openUploads]).toEqual([]);
  });

  test('of all workers in the middle of several hundred media burns no attempt of any', async () => {
    await using stack = await openStack({ env });
    const { simulator } = stack;
    const media = stack.addMedia(300, { sizeBytes: 8_000 });
    const dead = stack.addMedia(20);
    for (const { mediaId } of dead)
      simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 } });
    simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 2_000, everyMs: 50 } });
    const before = [stack.worker(), stack.worker({ SHUTDOWN_GRACE_SECONDS: '0' })];
    const mixed = media.flatMap((added, index) => [added, ...dead.slice(index, index + 1)]);
    await begin(stack, mixed, 2 * SLOTS);
    await eventually(() => (before.every((worker) => logLines(worker, 'archived"').length >= 20) ? true : undefined));
    expect(await Promise.all(before.map(terminate))).toEqual([0, 0]);
    expect(await laneCounts(stack)).toMatchObject({ active: 0 });
    expect(await waiting(stack, mixed)).toMatchObject({ attempts: 0 });
    expect(before.flatMap((worker) => logLines(worker, 'put back')).length).toBeGreaterThan(0);

    const workers = [...before, stack.worker(), stack.worker()];
    await untilIdle(stack);
    const archived = workers.flatMap((worker) => logLines(worker, 'archived"'));
    expect(archived.filter(({ attempt }) => attempt !== 1)).toEqual([]);
    expect(archived).toHaveLength(media.length);
    for (const { attempts } of await lettersOf(stack)) expect(attempts).toHaveLength(1);
    await expectEachEndedOnce(stack, { saved: media, dead, workers });
  });

  test('while an app waits behind its gate ends at once', async () => {
    await using stack = await openStack({ env });
    stack.simulator.arm({ endpoint: 'media', action: { type: 'errcode', errcode: 45009 } });
    const media = stack.addMedia(5);
    const worker = stack.worker();
    await stack.queue.door.admit(media.map(jobOf));
    await worker.said('gate closed');
    expect(await terminate(worker)).toBe(0);
    expect(await waiting(stack, media)).toMatchObject({ jobs: media.length });
    expect(await laneCounts(stack)).toMatchObject({ active: 0 });
  });

  test('does not hang when Redis is gone, frozen or was never there, and nothing is lost', async () => {
    const options = { ownRedis: true, env: { ...env, SHUTDOWN_GRACE_SECONDS: '1', WORKER_LOCK_SECONDS: '2' } };
    await using gone = await openStack(options);
    await using frozen = await openStack(options);
    const held = new Map([gone, frozen].map((stack) => [stack, addHangingMedia(stack, 10)]));
    const workers = [...held.keys()].map((stack) => stack.worker());
    await Promise.all([...held].map(([stack, media]) => begin(stack, media)));
    await gone.redisServer().stop();
    frozen.redisServer().process.kill('SIGSTOP');
    const late = gone.worker();
    await late.said('Redis connection error');
    expect(await Promise.all([...workers, late].map(terminate))).toEqual([0, 0, 0]);

    await gone.restartRedis();
    frozen.redisServer().process.kill('SIGCONT');
    const ends = [...held].map(async ([stack, media]) => {
      await eventually(() => (stack.queue.redis.status === 'ready' ? true : undefined));
      expect(await waiting(stack, media)).toEqual({ jobs: media.length, attempts: 0 });
      await expectAllSavedByAnother(stack, media);
    });
    await Promise.all(ends);
  });

  test.each(['catalog', 'derive'] as const)(
    'ends %s too when Redis is gone or frozen',
    async (name) => {
      if (name === 'derive') await provideFfmpeg();
      const settings = { SHUTDOWN_GRACE_SECONDS: '1', WORKER_LOCK_SECONDS: '1', CATALOG_FLUSH_SECONDS: '0.05' };
      await using gone = await openStack({ ownRedis: true, env: settings });
      await using frozen = await openStack({ ownRedis: true, env: settings });
      const running = [gone, frozen].map((stack) => stack[name]());
      await Promise.all(running.map((one) => one.said(`"msg":"${name} started"`)));
      await gone.redisServer().stop();
      frozen.redisServer().process.kill('SIGSTOP');
      await running[0]?.said('Redis connection error');
      expect(await Promise.all(running.map(terminate))).toEqual([0, 0]);
      frozen.redisServer().process.kill('SIGCONT');
    },
    INSTALL_TIMEOUT_MS,
  );

  test('a second time ends the worker at once, and what it held is done by another', async () => {
    await using stack = await openStack({ env: { ...env, WORKER_LOCK_SECONDS: '2' } });
    const media = addHangingMedia(stack, 8);
    const worker = stack.worker({ SHUTDOWN_GRACE_SECONDS: '3600' });
    await begin(stack, media);
    worker.process.kill('SIGTERM');
    await worker.said('worker stops');
    expect(await terminate(worker)).toBe(143);
    await expectAllSavedByAnother(stack, media);
  });
});

test('SIGINT is taken as SIGTERM', async () => {
  await using stack = await openStack({ env });
  const worker = stack.worker();
  await worker.said('worker started');
  worker.process.kill('SIGINT');
  expect(await worker.exited).toBe(0);
  expect(logLines(worker, 'worker stopped')).toHaveLength(1);
});
