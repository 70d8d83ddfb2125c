import { expect, test, vi } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { eventually } from '../support/eventually.ts';
import {
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

const MIB = 1024 * 1024;

const env = {
  // What a dead worker held comes back soon.
  WORKER_LOCK_SECONDS: '2',
  WORKER_CONCURRENCY: '8',
  ARCHIVE_PART_SIZE: '5MiB',
};

/**
 * Media that take their time, so that one worker alone can't have them all, and one killed at any moment is in the
 * middle of some. The first are large enough for a multipart upload.
 */
function addSlowMedia(stack: Stack, count: number): SimulatedMedia[] {
  return Array.from({ length: count }, (_, index) => {
    const [chunkBytes, everyMs, large] =
      index < 2 ? [65_536, 5, { format: 'mp4', sizeBytes: 12 * MIB } as const] : [8_000, 60, {}];
    const [media] = stack.addMedia(1, { sizeBytes: 60_000, ...large });
    if (media === undefined) throw new Error('no media');
    stack.simulator.arm({ endpoint: 'media', mediaId: media.mediaId, action: { type: 'drip', chunkBytes, everyMs } });
    return media;
  });
}

async function kill(worker: WorkerProcess): Promise<void> {
  worker.process.kill('SIGKILL');
  expect(await worker.exited).toBe('SIGKILL');
}

/** Resolves when a worker has archived some media since it started. */
async function untilItHasArchived(worker: WorkerProcess, count: number): Promise<void> {
  await eventually(() => (logLines(worker, 'archived').length >= count ? true : undefined));
}

/** Nothing lost, nothing twice, nothing left over. */
async function expectAllArchivedOnce(
  stack: Stack,
  media: readonly SimulatedMedia[],
  workers: readonly WorkerProcess[],
): Promise<void> {
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(media.length);
  expect(await openJobs(stack)).toBe(0);
  const said = workers.flatMap((worker) => logLines(worker, 'archived"').map(({ mediaId }) => mediaId));
  expect(said).toHaveLength(new Set(said).size);
}

test('a worker that is killed again and again under load loses nothing and does nothing twice', async () => {
  await using stack = await openStack({ env });
  const media: SimulatedMedia[] = [];
  const workers = [stack.worker()];
  for (let kills = 4; kills > 0; kills -= 1) {
    const victim = stack.worker();
    workers.push(victim);
    await victim.said('worker started');
    const wave = addSlowMedia(stack, 48);
    media.push(...wave);
    await stack.queue.door.admit(wave.map(jobOf));
    await untilItHasArchived(victim, 3);
    expect(await openJobs(stack)).toBeGreaterThan(0);
    await kill(victim);
  }
  workers.push(stack.worker());
  await untilIdle(stack, 90_000);

  await expectAllArchivedOnce(stack, media, workers);
  expect(await lettersOf(stack)).toEqual([]);
  const rescued = workers.flatMap((worker) => logLines(worker, 'took over jobs of a worker that died'));
  expect(rescued.length).toBeGreaterThan(0);
});

test('after all workers were killed at once, new ones finish what was begun', async () => {
  await using stack = await openStack({ env });
  const media = addSlowMedia(stack, 60);
  await stack.queue.door.admit(media.map(jobOf));
  const before = [stack.worker(), stack.worker()];
  await Promise.all(before.map((worker) => untilItHasArchived(worker, 3)));
  await Promise.all(before.map(kill));
  const left = await openJobs(stack);
  expect(left).toBeGreaterThan(0);

  const after = [stack.worker(), stack.worker()];
  await untilIdle(stack, 90_000);
  await expectAllArchivedOnce(stack, media, [...before, ...after]);
  expect(await lettersOf(stack)).toEqual([]);
});

test('workers that are killed while they bury leave one whole letter of each media', async () => {
  await using stack = await openStack({ env });
  const media = stack.addMedia(120).map((added) => {
    const { mediaId } = added;
    stack.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 } });
    return added;
  });
  await stack.queue.door.admit(media.map(jobOf));
  for (let kills = 3; kills > 0; kills -= 1) {
    const victim = stack.worker();
    await eventually(async () =>
      logLines(victim, 'given up').length >= 2 || (await openJobs(stack)) === 0 ? true : undefined,
    );
    await kill(victim);
  }
  stack.worker();
  await untilIdle(stack, 90_000);

  const letters = await lettersOf(stack);
  expect(new Set(letters.map(({ mediaId }) => mediaId))).toEqual(new Set(media.map(({ mediaId }) => mediaId)));
  expect(letters).toHaveLength(media.length);
  for (const { reason, attempts, status } of letters) {
    expect({ reason, status, last: attempts.at(-1)?.failure }).toEqual({
      reason: 'media-type-unsupported',
      status: 'open',
      last: 'media-type-unsupported',
    });
  }
  expect(await stack.queue.deadLetterIndex.count()).toBe(media.length);
  expect(await keysBelow(stack, 'media/')).toEqual([]);
});
