import { afterEach, beforeEach, expect, test } from 'vitest';
import { mediaJobId } from '../../src/media/media-job.ts';
import type { Door } from '../../src/queue/door.ts';
import { INBOX_LANE, type Lanes, laneOf } from '../../src/queue/lane.ts';
import { priorityOf } from '../../src/queue/priority.ts';
import { readQueueStats } from '../../src/queue/queue-stats.ts';
import { DAY, HOUR, MINUTE } from '../../src/time.ts';
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
  await door.admit([testJob({ receivedAt: '2026-06-15T10:00:00Z' }), testJob({ receivedAt: '2026-06-13T10:02:00Z' })]);
  await door.admit([testJob({ appId: OTHER_APP_ID, receivedAt: '2026-06-14T10:00:00Z' })]);
  await takeOne(lanes.lane(laneOf(OTHER_APP_ID)));
  expect(await read(APP_ID)).toEqual([
    { appId: APP_ID, ...EMPTY, waiting: 2, nearestDeadline: Date.parse('2026-06-16T10:00:00Z') },
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

test('the nearest deadline among many that are delayed is found', async () => {
  const lane = lanes.lane(laneOf(APP_ID));
  const ids = Array.from({ length: 100 }, (_, number) => number);
  await lane.add(
    ids.map((id) => ({ id: `a${id}`, data: {}, priority: priorityOf(clock.now() + DAY + id * 10 * MINUTE) })),
  );
  for (const id of ids) await lane.delay(await takeOne(lane), undefined, Date.now() + 3 * HOUR - id * MINUTE);
  const [stats] = await read(APP_ID);
  expect(stats).toEqual({ appId: APP_ID, ...EMPTY, delayed: 100, nearestDeadline: clock.now() + DAY });
});

test('a job that was rescued from a worker that died waits like any other', async () => {
  const job = testJob();
  await door.admit([job]);
  const lane = lanes.lane(laneOf(APP_ID));
  await takeOne(lane);
  await loseWorker(corner.redis, lane, mediaJobId(job));
  expect(await read(APP_ID)).toEqual([{ appId: APP_ID, ...EMPTY, waiting: 1 }]);
});

test('the inbox is told only while something lies in it', async () => {
  const inbox = lanes.lane(INBOX_LANE);
  await inbox.add([{ id: 'a', data: {}, priority: 1 }]);
  expect((await read()).map(({ appId, waiting }) => [appId, waiting])).toEqual([[undefined, 1]]);
  await inbox.complete(await takeOne(inbox));
  expect(await read()).toEqual([]);
});
