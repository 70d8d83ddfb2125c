import { expect } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { jobOf, keysBelow, lettersOf, logLines, notArchived, openJobs, type Stack } from './stack.ts';

/** How the media of a test must have ended. */
export interface Ends {
  /** In the bucket, with the very bytes that WeChat has. */
  readonly saved: readonly SimulatedMedia[];
  /** Open dead letters. */
  readonly dead?: readonly SimulatedMedia[];
  /** Those of `saved` that have been dead letters: theirs are resolved. */
  readonly replayed?: readonly SimulatedMedia[];
  /** Everybody who may have archived one. */
  readonly workers: readonly WorkerProcess[];
  /** Multipart uploads that the store still keeps open; where nobody asks, none was begun. */
  readonly openUploads?: Iterable<string>;
}

/** Every media has one end, and whole: nothing is lost, nothing twice, nothing stuck, nothing left over. */
export async function expectEachEndedOnce(
  stack: Stack,
  { saved, dead = [], replayed = [], workers, openUploads = [] }: Ends,
): Promise<void> {
  expect(await openJobs(stack)).toBe(0);
  expect(await notArchived(stack, saved)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(saved.length);
  expect(await keysBelow(stack, '')).toHaveLength(saved.length + dead.length + replayed.length);
  expect([...openUploads]).toEqual([]);

  const letters = await lettersOf(stack);
  const idsOf = (status: string): string[] =>
    letters.flatMap((letter) => (letter.status === status ? [letter.mediaId] : [])).sort();
  expect(idsOf('open')).toEqual(sortedIds(dead));
  expect(idsOf('resolved')).toEqual(sortedIds(replayed));
  const jobs = new Map([...dead, ...replayed].map((media) => [media.mediaId, jobOf(media)]));
  for (const { mediaId, job, reason, attempts, diedAt, firstAttemptAt } of letters) {
    expect(job).toEqual(jobs.get(mediaId));
    expect(reason).toBe(attempts.at(-1)?.failure);
    expect(firstAttemptAt).toBe(attempts[0]?.at);
    expect(attempts.every(({ at }, index) => at <= diedAt && at >= (attempts[index - 1]?.at ?? at))).toBe(true);
  }
  const listed = await Array.fromAsync(stack.queue.deadLetterIndex.list({}));
  expect(listed.map(({ mediaId }) => mediaId).sort()).toEqual(sortedIds(dead));

  for (const appId of new Set([...saved, ...dead].map((media) => media.appId))) {
    const { failed } = await stack.queue.lanes.lane(laneOf(appId)).counts();
    expect(failed).toBe(0);
  }
  // Whose marker was written in the moment its worker lost it was archived by nobody's word.
  const said = workers.flatMap((worker) => logLines(worker, 'archived"').map(({ jobId }) => jobId));
  expect(said).toHaveLength(new Set(said).size);
  expect(saved.map((media) => mediaJobId(jobOf(media)))).toEqual(expect.arrayContaining(said));
}

function sortedIds(media: readonly SimulatedMedia[]): string[] {
  return media.map(({ mediaId }) => mediaId).sort();
}
