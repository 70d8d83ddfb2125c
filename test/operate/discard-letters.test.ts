import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { DeadLetterSummary } from '../../src/dead-letter/dead-letter.ts';
import { failure } from '../../src/failure.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { type Discarded, discardLetters } from '../../src/operate/discard-letters.ts';
import { HOUR, iso } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { testJob } from '../support/jobs.ts';
import {
  failing,
  letterOf,
  never,
  openTestStore,
  type TestStore,
  type TestWorker,
  testWorker,
} from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let bucket: TestStore;
let corner: TestRedis;
let by: TestWorker;

beforeAll(async () => {
  bucket = await openTestStore();
});

afterAll(() => bucket[Symbol.asyncDispose]());

const clock = testClock(Date.now());

beforeEach(async () => {
  corner = await openTestRedis();
  const attempt = failing(failure('media-too-large', { detail: '1' }));
  by = testWorker({ corner, store: bucket.store, clock, attempt });
});

afterEach(() => corner[Symbol.asyncDispose]());

async function dead(): Promise<{ readonly job: MediaJob; readonly summary: DeadLetterSummary }> {
  const job = testJob({ receivedAt: iso(clock.now() - HOUR) });
  await by.door.admit([job]);
  await by.runNext();
  const summary = await by.index.get(mediaJobId(job));
  if (summary === undefined) throw new Error('it did not die');
  return { job, summary };
}

async function discard(summary: DeadLetterSummary, reason = ''): Promise<Discarded | undefined> {
  const desk = { redis: corner.redis, keys: corner.keys, deadLetters: by.deadLetters };
  const how = { note: { by: 'op', reason }, dryRun: false };
  const [told] = await Array.fromAsync(discardLetters(desk, [summary], how, never));
  return told?.done;
}

test('a letter that has been discarded since the list was read is skipped, and keeps its first note', async () => {
  const { job, summary } = await dead();
  expect(await discard(summary, 'first')).toEqual({ outcome: 'discarded' });
  expect(await discard(summary, 'second')).toEqual({ outcome: 'skipped', why: 'not-open' });
  expect((await letterOf(by, job))?.discarded).toMatchObject({ reason: 'first' });
});

test('a letter of a media that has died again since the list was read is skipped', async () => {
  const { job, summary } = await dead();
  await by.index.add({ ...summary, diedAt: iso(clock.now() + 1) });
  expect(await discard(summary)).toEqual({ outcome: 'skipped', why: 'not-open' });
  expect((await letterOf(by, job))?.status).toBe('open');
});

test('the lease is given back, whatever comes of it', async () => {
  const { summary } = await dead();
  await discard(summary);
  expect(await corner.redis.exists(corner.keys.replay(summary.jobId))).toBe(0);
});
