import { expect, test, vi } from 'vitest';
import { startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { eventually } from '../support/eventually.ts';
import { startFaultProxy } from '../support/fault-proxy.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { jobOf, logLines, openJobs, openStack, untilIdle } from '../support/stack.ts';
import { S3_SECRET } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const MIB = 1024 * 1024;
const env = { WORKER_CONCURRENCY: '6', WORKER_LOCK_SECONDS: '2', ARCHIVE_PART_SIZE: '5MiB' };

/** The jobs that a worker has taken over from others so far. */
function takenOver(worker: WorkerProcess): string[] {
  return logLines(worker, 'took over jobs of a worker that died').flatMap(({ jobIds }) => jobIds as string[]);
}

test('a worker that stands still for longer than a lock lasts, in the middle of downloads, leaves them to another', async () => {
  await using s3 = await startEmbeddedS3('behind-the-proxy');
  await using proxy = await startFaultProxy(s3.endpoint, { lists: 'uploads' });
  const gateway = { endpoint: proxy.endpoint, accessKeyId: 'test', secretAccessKey: S3_SECRET };
  await using stack = await openStack({ gateway, env });
  const { simulator } = stack;
  const large = stack.addMedia(4, { format: 'mp4', sizeBytes: 11 * MIB });
  for (const { mediaId } of large)
    simulator.arm({ endpoint: 'media', mediaId, action: { type: 'drip', chunkBytes: 65_536, everyMs: 10 } });
  simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 1_000, everyMs: 80 } });
  const media = [...large, ...stack.addMedia(236, { sizeBytes: 6_000 })];
  const [one, other] = [stack.worker(), stack.worker()];
  await Promise.all([one, other].map((worker) => worker.said('worker started')));
  await stack.queue.door.admit(media.map(jobOf));

  // Each in its turn, so that each is in the middle of what the other takes over.
  for (const [index, [frozen, awake]] of [
    [one, other],
    [other, one],
    [one, other],
  ].entries()) {
    if (frozen === undefined || awake === undefined) throw new Error('no worker');
    await eventually(async () => ((await openJobs(stack)) <= 230 - index * 60 ? true : undefined));
    const before = takenOver(awake).length;
    const left = logLines(frozen, 'left to another worker').length;
    frozen.process.kill('SIGSTOP');
    await eventually(() => (takenOver(awake).length > before ? true : undefined));
    expect(await openJobs(stack)).toBeGreaterThan(0);
    frozen.process.kill('SIGCONT');
    await eventually(() => (logLines(frozen, 'left to another worker').length > left ? true : undefined));
  }
  await untilIdle(stack, 90_000);

  const workers = [one, other];
  // Nothing failed. What was broken off is on record once for each time it was taken over; not even that, where the
  // media was found to lie in the bucket already.
  expect(workers.flatMap((worker) => logLines(worker, 'failed'))).toEqual([]);
  expect(workers.flatMap((worker) => logLines(worker, 'unexpected fault'))).toEqual([]);
  const losses = Map.groupBy(workers.flatMap(takenOver), (jobId) => jobId);
  for (const { jobId, attempt } of workers.flatMap((worker) => logLines(worker, 'archived"')))
    expect(attempt, String(jobId)).toBeLessThanOrEqual(1 + (losses.get(String(jobId))?.length ?? 0));
  for (const { process: child } of workers) expect(child.exitCode ?? child.signalCode).toBe(null);
  await expectEachEndedOnce(stack, { saved: media, workers, openUploads: proxy.openUploads() });
});
