import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { failure } from '../../src/failure.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { createMediaStatusReader, type ReadMediaStatus } from '../../src/queue/media-status.ts';
import { deadLetterKey, mediaKey } from '../../src/store/object-keys.ts';
import { DAY, HOUR, iso, MINUTE } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { testJob } from '../support/jobs.ts';
import {
  failing,
  openTestStore,
  type TestStore,
  type TestWorkerOptions,
  takeOne,
  testLanes,
  testWorker,
} from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const TTL_MS = 3 * DAY;

let bucket: TestStore;
let corner: TestRedis;
let clock: TestClock;
let job: MediaJob;
let status: ReadMediaStatus;

beforeAll(async () => {
  bucket = await openTestStore();
});

afterAll(() => bucket[Symbol.asyncDispose]());

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock(Date.now());
  job = testJob({ receivedAt: iso(clock.now() - HOUR) });
  const { redis, keys } = corner;
  status = createMediaStatusReader({ redis, keys, lanes: testLanes(corner), mediaTtlMs: TTL_MS, now: clock.now });
});

afterEach(() => corner[Symbol.asyncDispose]());

function workerWith(attempt?: TestWorkerOptions['attempt']): ReturnType<typeof testWorker> {
  return testWorker({ corner, store: bucket.store, clock, ...(attempt === undefined ? {} : { attempt }) });
}

const deadline = (): string => iso(Date.parse(job.receivedAt) + TTL_MS);

describe('a media', () => {
  test('that nobody has handed in is unknown', async () => {
    expect(await status(job)).toEqual({ state: 'unknown' });
  });

  test('that waits is told with its deadline', async () => {
    await workerWith().door.admit([job]);
    expect(await status(job)).toEqual({ state: 'waiting', attempts: 0, deadline: deadline() });
  });

  test('that a worker has taken is active', async () => {
    const by = workerWith();
    await by.door.admit([job]);
    await takeOne(by.lane);
    expect(await status(job)).toEqual({ state: 'active', attempts: 0, deadline: deadline() });
  });

  test('that has failed tells of what, how often, and when it is tried again', async () => {
    const by = workerWith(failing(failure('weixin-busy', { errcode: -1 })));
    await by.door.admit([job]);
    await by.runNext();
    const seen = await status(job);
    expect(seen).toEqual({
      state: 'delayed',
      nextTryAt: expect.any(String),
      attempts: 1,
      reason: 'weixin-busy',
      deadline: deadline(),
    });
    const { nextTryAt = '' } = seen as { nextTryAt?: string };
    expect(Date.parse(nextTryAt)).toBeGreaterThan(clock.now());
    expect(Date.parse(nextTryAt)).toBeLessThan(clock.now() + MINUTE);
  });

  test('that is archived tells where', async () => {
    const by = workerWith();
    await by.door.admit([job]);
    await by.runNext();
    expect(await status(job)).toEqual({ state: 'archived', key: mediaKey(job, 'jpg') });
  });

  test('that has been given up tells why, and where its letter lies; then that it was discarded', async () => {
    const by = workerWith(failing(failure('media-type-unsupported', { errcode: 40004 })));
    await by.door.admit([job]);
    await by.runNext();
    expect(await status(job)).toEqual({
      state: 'dead',
      key: deadLetterKey(job),
      reason: 'media-type-unsupported',
      errcode: 40004,
      attempts: 1,
      diedAt: iso(clock.now()),
      deadline: deadline(),
    });
    await by.index.discard(mediaJobId(job), deadline());
    expect(await status(job)).toEqual({ state: 'discarded' });
  });

  test('whose variant is another tells of itself', async () => {
    const variant: MediaJob = { ...job, kind: 'voice', variant: 'hd-voice' };
    const by = workerWith();
    await by.door.admit([job, variant]);
    await by.runNext();
    const states = await Promise.all([job, variant].map(status));
    expect(states.map(({ state }) => state).toSorted()).toEqual(['archived', 'waiting']);
  });

  test('that is replayed while it is looked for is found', async () => {
    const by = workerWith();
    let looks = 0;
    // In its lane only when it is looked at for the second time.
    const lanes = {
      lane: (name: string) => ({
        ...by.lanes.lane(name),
        peek: async (id: string) => {
          looks += 1;
          if (looks === 2) await by.door.admit([job]);
          return by.lanes.lane(name).peek(id);
        },
      }),
    };
    const { redis, keys } = corner;
    const late = createMediaStatusReader({ redis, keys, lanes, mediaTtlMs: TTL_MS, now: clock.now });
    expect(await late(job)).toMatchObject({ state: 'waiting' });
  });

  test.each(['{"v":7}', 'no json', ''])(
    'whose job somebody has overwritten with %j is told without it',
    async (data) => {
      await workerWith().door.admit([job]);
      await corner.redis.hset(testLanes(corner).lane(laneOf(job.appId)).keyOfJob(mediaJobId(job)), 'data', data);
      expect(await status(job)).toEqual({ state: 'waiting' });
    },
  );
});
