import { afterEach, beforeEach, expect, test } from 'vitest';
import { createThroughput, type Throughput } from '../../src/queue/throughput.ts';
import { HOUR, MINUTE } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const NOTHING = { archived: 0, retry: 0, wait: 0, dead: 0, bytes: 0 };
let corner: TestRedis;
let clock: TestClock;
let worker: Throughput;

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock();
  worker = another();
});

afterEach(() => corner[Symbol.asyncDispose]());

function another(): Throughput {
  return createThroughput(corner.connect(), corner.keys, clock.now);
}

test('what all workers do is summed up by app', async () => {
  const other = another();
  worker.count(APP_ID, 'archived', 1);
  worker.count(APP_ID, 'archived', 1);
  worker.count(APP_ID, 'bytes', 5_000_000_000);
  worker.count(OTHER_APP_ID, 'dead', 1);
  other.count(APP_ID, 'archived', 3);
  other.count(APP_ID, 'retry', 1);
  await Promise.all([worker.flush(), other.flush()]);
  expect(await another().read(5)).toEqual(
    new Map([
      [APP_ID, { ...NOTHING, archived: 5, retry: 1, bytes: 5_000_000_000 }],
      [OTHER_APP_ID, { ...NOTHING, dead: 1 }],
    ]),
  );
});

test('nothing is counted twice', async () => {
  worker.count(APP_ID, 'archived', 1);
  await worker.flush();
  await worker.flush();
  worker.count(APP_ID, 'archived', 1);
  await worker.flush();
  expect((await worker.read(1)).get(APP_ID)?.archived).toBe(2);
});

test('what was counted is of the minute it happened in, not of the one it was written in', async () => {
  worker.count(APP_ID, 'archived', 1);
  clock.advance(3 * MINUTE);
  worker.count(APP_ID, 'archived', 10);
  await worker.flush();
  const archived = async (minutes: number): Promise<number | undefined> =>
    (await worker.read(minutes)).get(APP_ID)?.archived;
  expect([await archived(1), await archived(3), await archived(4)]).toEqual([10, 10, 11]);
});

test('the counters go away by themselves', async () => {
  worker.count(APP_ID, 'archived', 1);
  await worker.flush();
  const leftMs = await corner.redis.pttl(corner.keys.throughput(Math.floor(clock.now() / MINUTE)));
  expect(leftMs).toBeGreaterThan(HOUR);
  expect(leftMs).toBeLessThanOrEqual(2 * HOUR);
});

test('where nothing has happened there is nothing', async () => {
  await worker.flush();
  expect(await worker.read(60)).toEqual(new Map());
});

test('a counter of a release to come is passed over', async () => {
  await corner.redis.hset(corner.keys.throughput(Math.floor(clock.now() / MINUTE)), `${APP_ID} melted`, 7);
  expect(await worker.read(1)).toEqual(new Map([[APP_ID, NOTHING]]));
});
