import { expect, test, vi } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { DAY, SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { jobOf, keysBelow, lettersOf, logLines, notArchived, openStack, untilIdle } from '../support/stack.ts';
import { openS3Door } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const MIB = 1024 * 1024;

test('a store that goes away in the middle and comes back gets everything, whole', async () => {
  await using door = await openS3Door();
  await using stack = await openStack({ gateway: door.gateway, env: { ARCHIVE_PART_SIZE: '5MiB' } });
  stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 20_000, everyMs: 30 } });
  const media = [...stack.addMedia(80, { sizeBytes: 60_000 })];
  const workers = [stack.worker({ WORKER_CONCURRENCY: '6' }), stack.worker({ WORKER_CONCURRENCY: '6' })];
  await stack.queue.door.admit(media.map(jobOf));
  await eventually(() => (workers.every((worker) => logLines(worker, 'archived').length >= 5) ? true : undefined));
  await door.shut();
  await eventually(() =>
    workers.every((worker) => worker.log().includes('"code":"store-unreachable"')) ? true : undefined,
  );
  await door.open();
  await untilIdle(stack, 120_000);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await keysBelow(stack, '')).toHaveLength(media.length);
  for (const { process: child } of workers) expect(child.exitCode).toBe(null);
});

test('media that a store refuses in whatever way are kept, not buried, and saved once it is over', async () => {
  await using door = await openS3Door();
  await using stack = await openStack({ gateway: door.gateway, env: { ARCHIVE_PART_SIZE: '5MiB' } });
  const worker = stack.worker();
  await worker.said('worker started');
  const troubles = [
    { status: 503, code: 'SlowDown', failure: 'store-busy' },
    { status: 403, code: 'AccessDenied', failure: 'store-denied' },
    { status: 404, code: 'NoSuchBucket', failure: 'store-bucket-missing' },
    { status: 301, code: 'PermanentRedirect', region: 'eu-west-1', failure: 'store-region-wrong' },
    { status: 400, code: 'XAmzContentSHA256Mismatch', failure: 'store-corrupted' },
    { status: 400, code: 'EntityTooOdd', failure: 'store-refused' },
  ];
  const media: SimulatedMedia[] = [];
  for (const { failure, ...trouble } of troubles) {
    door.answer(trouble);
    const wave = [...stack.addMedia(4), ...stack.addMedia(1, { format: 'mp4', sizeBytes: 11 * MIB })];
    media.push(...wave);
    await stack.queue.door.admit(wave.map(jobOf));
    const failed = (): unknown[] =>
      logLines(worker, 'failed, will be tried again').filter((line) => JSON.stringify(line).includes(`"${failure}"`));
    await eventually(() => (failed().length >= wave.length ? true : undefined));
  }
  door.answer(undefined);
  await untilIdle(stack, 120_000);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await lettersOf(stack)).toEqual([]);
  expect([...door.openUploads]).toEqual([]);
});

test('a media that dies while the store takes no letter stays in the queue until its letter is written', async () => {
  await using door = await openS3Door();
  await using stack = await openStack({ gateway: door.gateway });
  const media = stack.addMedia(3, { ageMs: 3 * DAY - 5 * SECOND });
  const worker = stack.worker();
  await worker.said('worker started');
  // What lies there can be seen, so that nothing but the letter keeps the burial up.
  door.answer({ status: 503, code: 'SlowDown' }, ['PUT']);
  await stack.queue.door.admit(media.map(jobOf));
  await eventually(() => (logLines(worker, 'could not be settled yet').length >= media.length ? true : undefined));
  expect(logLines(worker, 'given up')).toEqual([]);
  const name = [media[0]?.appId ?? '', '--', media[0]?.mediaId ?? ''];
  const lines = (await stack.command(['show', '--json', ...name])).rows();
  expect(lines[0]).toMatchObject({ state: 'delayed' });
  expect(await keysBelow(stack, '')).toEqual([]);
});
