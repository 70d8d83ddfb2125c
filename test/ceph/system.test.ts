import { expect, inject, test } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { jobOf, keysBelow, lettersOf, notArchived, openStack, openUploads, untilIdle } from '../support/stack.ts';

const PART_SIZE_BYTES = 5 * 1024 * 1024;
const DAY_MS = 86_400_000;

test('two workers archive every kind of media, and bury what can not be had', async () => {
  await using stack = await openStack({ gateway: inject('ceph'), env: { ARCHIVE_PART_SIZE: '5MiB' } });
  const archivable = [
    ...stack.addMedia(8),
    ...stack.addMedia(4, { format: 'amr' }),
    ...stack.addMedia(2, { format: 'mp4', sizeBytes: PART_SIZE_BYTES }),
    ...stack.addMedia(2, { format: 'mp4', sizeBytes: PART_SIZE_BYTES + 1 }),
    ...stack.addMedia(2, { format: 'mp4', sizeBytes: 2 * PART_SIZE_BYTES, deliver: 'video-url' }),
    ...stack.addMedia(2, { ageMs: 2 * DAY_MS }),
  ];
  const gone = stack.addMedia(2, { ageMs: 4 * DAY_MS });
  const media = [...archivable, ...gone];
  stack.simulator.arm({ endpoint: 'media', action: { type: 'truncate' }, times: 3 });
  const workers = [stack.worker(), stack.worker()];
  expect(await stack.queue.door.admit(media.map(jobOf))).toMatchObject({ accepted: media.length });

  await untilIdle(stack);
  expect(await notArchived(stack, archivable)).toEqual([]);
  expect(await openUploads(stack)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(archivable.length);
  expect((await lettersOf(stack)).map(({ mediaId }) => mediaId).sort()).toEqual(
    gone.map(({ mediaId }) => mediaId).sort(),
  );

  for (const { process: child } of workers) child.kill('SIGTERM');
  await eventually(() => (workers.every(({ process: child }) => child.exitCode === 0) ? true : undefined));
});
