import { afterEach, beforeEach, expect, test } from 'vitest';
import { mediaJobId } from '../../src/media/media-job.ts';
import type { Door } from '../../src/queue/door.ts';
import { INBOX_LANE, type Lane, type Lanes, laneOf } from '../../src/queue/lane.ts';
import { priorityOf } from '../../src/queue/priority.ts';
import { readQueueStats } from '../../src/queue/queue-stats.ts';
import { DAY, HOUR, SECOND } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { loseWorker, takeOne, testDoor, testLanes } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const clock = testClock();
const EMPTY = { waiting: 0, delayed: 0, active: 0, failed: 0 };
let corner: TestRedis;
let lanes: Lanes;
let door: Door;

beforeEach(async () => {
  corner = await openTestRedis();
  lanes = testLanes(corner);
  door = testDoor(corner, lanes, clock);
});

afterEach(async () => {
  await lanes.close();
  await corner[Symbol.asyncDispose]();
});

const read = (...apps: string[]) => readQueueStats(corner.redis, corner.keys, lanes, apps);

test('an app that waits for nothing is told too', async () => {
  expect(await read(APP_ID)).toEqual([{ appId: APP_ID, ...EMPTY }]);
});

test('each app has its counts and its nearest deadline', async () => {
  await door.admit([testJob({ receivedAt: '2026-06-15T10:00:00Z' }), testJob({ receivedAt: '2026-06-13T10:02:50Z' })]);
  await door.admit([testJob({ appId: OTHER_APP_ID, receivedAt: '2026-06-14T10:00:00Z' })]);
  await takeOne(lanes.lane(laneOf(OTHER_APP_ID)));
  expect(await read(APP_ID)).toEqual([
    { appId: APP_ID, ...EMPTY, waiting: 2, nearestDeadline: Date.parse('2026-06-16T10:02:00Z') },
    { appId: OTHER_APP_ID, ...EMPTY, active: 1 },
  ]);
});

test('a job that waits for its next try counts with its deadline, not with its try', async () => {
  const lane = lanes.lane(laneOf(APP_ID));
  await door.admit([testJob({ receivedAt: '2026-06-13T10:00:00Z' }), testJob({ receivedAt: '2026-06-15T10:00:00Z' })]);
  await lane.delay(await takeOne(lane), undefined, Date.now() + HOUR);
  expect(await read(APP_ID)).toEqual([
    { appId: APP_ID, ...EMPTY, waiting: 1, delayed: 1, nearestDeadline: Date.parse('2026-06-16T10:00:00Z') },
  ]);
});

/** Puts jobs where BullMQ puts delayed ones, each due a second after the one before. */
async function addDelayed(priorities: readonly number[], lane: Lane = lanes.lane(laneOf(APP_ID))): Promise<void> {
  const pipeline = corner.redis.pipeline();
  for (const [index, priority] of priorities.entries()) {
    pipeline.hset(lane.keyOfJob(`d${index}`), { name: 'archive', data: '{}', opts: '{}', priority });
    pipeline.zadd(lane.keyOfJob('delayed'), (Date.now() + HOUR + index * SECOND) * 4_096, `d${index}`);
  }
  await pipeline.exec();
}

const inDays = (days: number): number => priorityOf(clock.now() + days * DAY);

test.each([1, 300, 2_500])(
  'the one that expires first is found among %d delayed whose turn comes before',
  async (n) => {
    await addDelayed([...Array.from({ length: n }, () => inDays(2)), inDays(0.5)]);
    expect(await read(APP_ID)).toEqual([
      { appId: APP_ID, ...EMPTY, delayed: n + 1, nearestDeadline: clock.now() + 0.5 * DAY },
    ]);
  },
);

test('a ready one that expires before all delayed ones counts, and a delayed one before all ready ones', async () => {
  await addDelayed([inDays(2)]);
  const lane = lanes.lane(laneOf(APP_ID));
  await lane.add([{ id: 'a', data: {}, priority: inDays(1) }]);
  expect(await read(APP_ID)).toMatchObject([{ nearestDeadline: clock.now() + DAY }]);
  await addDelayed([inDays(0.25)]);
  expect(await read(APP_ID)).toMatchObject([{ nearestDeadline: clock.now() + 0.25 * DAY }]);
});

test('a job that is gone, or that has no priority, does not hide the others', async () => {
  await addDelayed([inDays(1), inDays(2), inDays(3)]);
  const lane = lanes.lane(laneOf(APP_ID));
  await corner.redis.del(lane.keyOfJob('d0'));
  await corner.redis.hset(lane.keyOfJob('d1'), 'priority', 'soon');
  expect(await read(APP_ID)).toMatchObject([{ delayed: 3, nearestDeadline: clock.now() + 3 * DAY }]);
});

test('a very long lane is looked through once for the whole fleet, and what is ready is still seen at once', async () => {
  const lane = lanes.lane(laneOf(APP_ID));
  await addDelayed(Array.from({ length: 10_000 }, (_, index) => inDays(2) + index));
  expect(await read(APP_ID)).toMatchObject([{ delayed: 10_000, nearestDeadline: clock.now() + 2 * DAY }]);
  const key = corner.keys.nearest(lane.name);
  expect(await corner.redis.get(key)).toBe(String(inDays(2)));
  expect(await corner.redis.pttl(key)).toBeGreaterThan(0);
  // As if another worker had found it.
  await corner.redis.set(key, inDays(1.5));
  expect(await read(APP_ID)).toMatchObject([{ nearestDeadline: clock.now() + 1.5 * DAY }]);
  await lane.add([{ id: 'a', data: {}, priority: inDays(1) }]);
  expect(await read(APP_ID)).toMatchObject([{ nearestDeadline: clock.now() + DAY }]);
});

test('a job that was rescued from a worker that died waits like any other, with its deadline', async () => {
  const job = testJob({ receivedAt: '2026-06-14T10:00:00Z' });
  await door.admit([job]);
  const lane = lanes.lane(laneOf(APP_ID));
  await takeOne(lane);
  await loseWorker(corner.redis, lane, mediaJobId(job));
  expect(await read(APP_ID)).toEqual([
    { appId: APP_ID, ...EMPTY, waiting: 1, nearestDeadline: Date.parse('2026-06-17T10:00:00Z') },
  ]);
});

test('the inbox is told only while something lies in it', async () => {
  const inbox = lanes.lane(INBOX_LANE);
  await inbox.add([{ id: 'a', data: {}, priority: 1 }]);
  // A priority of somebody else's is no deadline of ours.
  expect(await read()).toEqual([{ ...EMPTY, waiting: 1 }]);
  await inbox.complete(await takeOne(inbox));
  expect(await read()).toEqual([]);
});
