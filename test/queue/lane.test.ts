import { Queue } from 'bullmq';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  appOfLane,
  INBOX_LANE,
  type Lane,
  type Lanes,
  LockLostError,
  laneOf,
  type TakenJob,
} from '../../src/queue/lane.ts';
import { openLanes } from '../../src/queue/open-lanes.ts';
import { HOUR, SECOND } from '../../src/time.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { LOCK_MS, loseWorker, takeOne, testLanes } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let lanes: Lanes;
let lane: Lane;

beforeEach(async () => {
  corner = await openTestRedis();
  lanes = testLanes(corner);
  lane = lanes.lane(laneOf(APP_ID));
});

afterEach(async () => {
  await lanes.close();
  await corner[Symbol.asyncDispose]();
});

const job = (id: string, priority = 100, data: unknown = { id }) => ({ id, data, priority });
const EMPTY = { waiting: 0, delayed: 0, active: 0, failed: 0 };

async function takeAll(from: Lane): Promise<string[]> {
  const ids: string[] = [];
  for (;;) {
    const taken = await from.take(crypto.randomUUID());
    if (taken.job === undefined) return ids;
    ids.push(taken.job.id);
  }
}

test.each([
  { what: 'behind', aheadMs: -HOUR },
  { what: 'ahead', aheadMs: HOUR },
])('a delayed job is due by the clock that was given, also where that is $what by an hour', async ({ aheadMs }) => {
  const start = Date.now() + aheadMs;
  let time = start;
  const options = { lockMs: LOCK_MS, rescueEveryMs: LOCK_MS, now: () => time };
  const byClock = openLanes(corner.connect(), corner.prefix, options);
  const watched = byClock.lane(laneOf(APP_ID));
  await watched.add([job('a')]);
  await watched.delay(await takeOne(watched), undefined, start + SECOND);
  expect(await watched.take('early')).toEqual({ nextAt: start + SECOND });
  time += SECOND;
  expect(await watched.take('due')).toMatchObject({ job: { id: 'a' } });
  await byClock.close();
});

describe('the name of a lane', () => {
  test('tells its app', () => {
    expect(appOfLane(laneOf(APP_ID))).toBe(APP_ID);
  });

  test.each([INBOX_LANE, 'media-', 'media-somebody', `x${laneOf(APP_ID)}`, `${laneOf(APP_ID)}0`])(
    '%s has no app',
    (name) => {
      expect(appOfLane(name)).toBeUndefined();
    },
  );
});

describe('a glance', () => {
  test('tells of each lane whether a job can run now, and when the next one is due, and takes nothing', async () => {
    const names = [APP_ID, OTHER_APP_ID].map(laneOf);
    const nothing = { ready: false, nextAt: undefined };
    expect(await lanes.glance(names)).toEqual([nothing, nothing]);

    await lane.add([job('a'), job('b')]);
    const dueAt = Date.now() + 60 * SECOND;
    await lane.delay(await takeOne(lane), undefined, dueAt);
    expect(await lanes.glance(names.toReversed())).toEqual([nothing, { ready: true, nextAt: dueAt }]);
    await takeOne(lane);
    expect(await lanes.glance(names)).toEqual([{ ready: false, nextAt: dueAt }, nothing]);
    expect(await lane.counts()).toEqual({ ...EMPTY, delayed: 1, active: 1 });
  });

  test('sees jobs that another program has put there without a priority', async () => {
    const queue = new Queue(laneOf(OTHER_APP_ID), { connection: corner.connect(), prefix: corner.prefix });
    await queue.add('archive', {});
    await queue.close();
    expect(await lanes.glance([laneOf(OTHER_APP_ID)])).toEqual([{ ready: true, nextAt: undefined }]);
  });

  test('into a lane whose keys somebody has overwritten hides no other', async () => {
    const other = lanes.lane(laneOf(OTHER_APP_ID));
    await other.add([job('a')]);
    await corner.redis.set(`${corner.prefix}:${lane.name}:delayed`, 'spoilt');
    const [spoilt, sound] = await lanes.glance([lane.name, other.name]);
    expect(spoilt).toMatchObject({ ready: false });
    expect(sound).toMatchObject({ ready: true });
  });

  test('that Redis refuses is no empty lane', async () => {
    await corner.redis.call('ACL', 'SETUSER', corner.prefix, 'on', '>secret', '~*', '&*', '+@all', '-zrange');
    const redis = corner.connect();
    await redis.call('AUTH', corner.prefix, 'secret');
    const refused = openLanes(redis, corner.prefix, { lockMs: LOCK_MS, rescueEveryMs: LOCK_MS });
    await expect(refused.glance([lane.name])).rejects.toThrow('NOPERM');
    await corner.redis.call('ACL', 'DELUSER', corner.prefix);
  });

  test('into no lane at all is none', async () => {
    expect(await lanes.glance([])).toEqual([]);
  });
});

describe('a job that is added', () => {
  test('is taken as it was written, once', async () => {
    await lane.add([job('a', 7, { to: 'archive' })]);
    const before = Date.now();
    const taken = await takeOne(lane, 'token');
    expect(taken).toMatchObject({
      id: 'a',
      data: '{"to":"archive"}',
      token: 'token',
      starts: 1,
      returns: 0,
      priority: 7,
    });
    expect(Math.abs(taken.enqueuedAt - before)).toBeLessThan(60 * SECOND);
    expect(await lane.take('another')).toEqual({ nextAt: undefined });
  });

  test('and is there already is left as it is, wherever it is', async () => {
    const states = ['one', 'two', 'three'];
    await lane.add(states.map((id) => job(id, 1, 'old')));
    await lane.delay(await takeOne(lane), undefined, Date.now() + 60 * SECOND);
    await takeOne(lane);
    const before = await lane.counts();
    expect(before).toEqual({ ...EMPTY, waiting: 1, delayed: 1, active: 1 });
    await lane.add(states.map((id) => job(id, 9, 'new')));
    expect(await lane.counts()).toEqual(before);
    for (const id of states) expect((await lane.peek(id))?.data).toBe('"old"');
  });

  test('comes in again once it has gone', async () => {
    for (const end of [lane.complete, (taken: Parameters<Lane['complete']>[0]) => lane.fail(taken, 'x')]) {
      await lane.add([job('a')]);
      await end(await takeOne(lane));
      expect(await lane.peek('a')).toBeUndefined();
    }
  });

  test('is in no other lane', async () => {
    await lane.add([job('a')]);
    expect(await lanes.lane(laneOf(OTHER_APP_ID)).take('token')).toEqual({ nextAt: undefined });
    expect(await lanes.lane(INBOX_LANE).take('token')).toEqual({ nextAt: undefined });
  });

  test('wakes whoever waits at the marker', async () => {
    const waiting = corner.connect().bzpopmin(lane.markerKey, 30);
    await lane.add([job('a')]);
    expect((await waiting)?.[0]).toBe(lane.markerKey);
  });
});

describe('what is taken first', () => {
  test('has the smallest priority, and of these has come first', async () => {
    await lane.add([job('d', 3), job('b', 2), job('c', 2), job('a', 1)]);
    expect(await takeAll(lane)).toEqual(['a', 'b', 'c', 'd']);
  });

  test('is the earliest deadline even of those that come back', async () => {
    await lane.add([job('early', 1), job('late', 9)]);
    await lane.delay(await takeOne(lane), undefined, Date.now());
    await lane.add([job('middle', 5)]);
    expect(await takeAll(lane)).toEqual(['early', 'middle', 'late']);
  });

  test('is told by its priority', async () => {
    expect(await lane.firstPriority()).toBeUndefined();
    await lane.add([job('b', 2_097_151), job('a', 48_516)]);
    expect(await lane.firstPriority()).toBe(48_516);
    await takeOne(lane);
    expect(await lane.firstPriority()).toBe(2_097_151);
  });
});

describe('a job that is put back', () => {
  test('with new data is taken from its time on with that, and not before', async () => {
    await lane.add([job('a')]);
    const at = Date.now() + 60 * SECOND;
    await lane.delay(await takeOne(lane), { tried: 1 }, at);
    expect(await lane.counts()).toEqual({ ...EMPTY, delayed: 1 });
    const { nextAt = 0 } = await lane.take('token').then((taken) => ({ nextAt: 0, ...taken }));
    expect(Math.abs(nextAt - at)).toBeLessThanOrEqual(1);
    expect((await lane.peek('a'))?.data).toBe('{"tried":1}');
  });

  test('for now comes at once, as it lies in Redis', async () => {
    await lane.add([job('a')]);
    await lane.delay(await takeOne(lane), undefined, Date.now());
    expect(await takeOne(lane)).toMatchObject({ id: 'a', data: '{"id":"a"}', starts: 2, returns: 1 });
  });

  test('a hundred times has as many returns as starts but one', async () => {
    await lane.add([job('a')]);
    for (let round = 1; round <= 100; round += 1) {
      const taken = await takeOne(lane);
      expect(taken.starts - 1).toBe(taken.returns);
      await lane.delay(taken, undefined, Date.now() - 1);
    }
  });
});

describe('the job of a worker that died', () => {
  test('is put back, and counted as a start that did not return', async () => {
    await lane.add([job('a')]);
    await takeOne(lane);
    await loseWorker(corner.redis, lane, 'a');
    expect(await takeOne(lane)).toMatchObject({ id: 'a', starts: 2, returns: 0 });
  });

  test('is put back however often it happens', async () => {
    await lane.add([job('a')]);
    for (let death = 1; death <= 30; death += 1) {
      expect(await takeOne(lane)).toMatchObject({ id: 'a', starts: death, returns: 0 });
      await loseWorker(corner.redis, lane, 'a');
    }
    expect(await lane.counts()).toEqual({ ...EMPTY, waiting: 1 });
  });

  test.each(['x', '', '1.5', '-1', '007', '9223372036854775807', '1e9', 'nan'])(
    'is put back although its count of rescues is %j, and no other is left behind',
    async (count) => {
      await lane.add([job('a'), job('b')]);
      for (const id of ['a', 'b']) {
        await takeOne(lane);
        await corner.redis.hset(lane.keyOfJob(id), 'stc', count);
      }
      await corner.redis.del(`${lane.keyOfJob('b')}:lock`);
      await loseWorker(corner.redis, lane, 'a');
      expect(await lane.counts()).toEqual({ ...EMPTY, waiting: 2 });
    },
  );

  test('keeps what was written about it', async () => {
    await lane.add([job('a')]);
    await lane.update(await takeOne(lane), { verdict: 'dead' });
    await loseWorker(corner.redis, lane, 'a');
    expect((await takeOne(lane)).data).toBe('{"verdict":"dead"}');
  });

  test('is not put back while its lock is kept', async () => {
    await lane.add([job('a')]);
    const taken = await takeOne(lane);
    for (let look = 0; look < 5; look += 1) {
      expect(await lane.extendLocks([taken])).toEqual([]);
      expect(await lane.rescue()).toEqual([]);
    }
  });
});

describe('a worker that has lost its lock', () => {
  const steps: readonly (readonly [string, (taken: Awaited<ReturnType<typeof takeOne>>) => Promise<void>])[] = [
    ['completes nothing', (taken) => lane.complete(taken)],
    ['fails nothing', (taken) => lane.fail(taken, 'media-expired')],
    ['delays nothing', (taken) => lane.delay(taken, { stolen: true }, Date.now())],
  ];

  describe.each(steps)('%s', (_name, step) => {
    test('while another worker runs the job', async () => {
      await lane.add([job('a')]);
      const lost = await takeOne(lane);
      await loseWorker(corner.redis, lane, 'a');
      const owned = await takeOne(lane);
      await expect(step(lost)).rejects.toThrow(LockLostError);
      expect(await lane.extendLocks([owned])).toEqual([]);
      await lane.complete(owned);
    });

    test('of a job that waits to be run again', async () => {
      await lane.add([job('a')]);
      const lost = await takeOne(lane);
      await loseWorker(corner.redis, lane, 'a');
      await expect(step(lost)).rejects.toThrow(LockLostError);
      expect(await takeOne(lane)).toMatchObject({ data: '{"id":"a"}' });
    });

    test('of a job that is gone', async () => {
      await lane.add([job('a')]);
      const lost = await takeOne(lane);
      await loseWorker(corner.redis, lane, 'a');
      await lane.complete(await takeOne(lane));
      await expect(step(lost)).rejects.toThrow(LockLostError);
      expect(await lane.peek('a')).toBeUndefined();
    });
  });

  test('is told by the next renewal, and the others are kept', async () => {
    await lane.add([job('a', 1), job('b', 2)]);
    const [first, second] = [await takeOne(lane), await takeOne(lane)];
    await corner.redis.del(`${lane.keyOfJob('a')}:lock`);
    expect(await lane.extendLocks([first, second])).toEqual(['a']);
    expect(await corner.redis.pttl(`${lane.keyOfJob('b')}:lock`)).toBeGreaterThan(LOCK_MS / 2);
  });

  test('writes no data into a job that is gone', async () => {
    await lane.add([job('a')]);
    const lost = await takeOne(lane);
    await loseWorker(corner.redis, lane, 'a');
    await lane.complete(await takeOne(lane));
    await expect(lane.update(lost, { late: true })).rejects.toThrow(LockLostError);
    expect(await corner.redis.exists(lane.keyOfJob('a'))).toBe(0);
  });

  test('writes no data into a job that another has', async () => {
    await lane.add([job('a')]);
    const lost = await takeOne(lane);
    await loseWorker(corner.redis, lane, 'a');
    const held = await takeOne(lane);
    await lane.update(held, { held: true });
    await expect(lane.update(lost, { late: true })).rejects.toThrow(LockLostError);
    expect((await lane.peek('a'))?.data).toBe('{"held":true}');
  });
});

describe('a job that ends as the next is taken', () => {
  test('is gone, and the next is locked for the same worker', async () => {
    await lane.add([job('a', 1), job('b', 2, { to: 'archive' })]);
    const first = await takeOne(lane, 'token');
    const { job: second } = await lane.completeAndTake(first);
    expect(second).toMatchObject({
      id: 'b',
      data: '{"to":"archive"}',
      token: 'token',
      starts: 1,
      returns: 0,
      priority: 2,
    });
    expect(await lane.peek('a')).toBeUndefined();
    expect(await corner.redis.exists(`${lane.keyOfJob('a')}:lock`)).toBe(0);
    if (second === undefined) throw new Error('nothing was taken');
    expect(await lane.extendLocks([second])).toEqual([]);
    expect(await lane.completeAndTake(second)).toEqual({ nextAt: undefined });
    expect(await lane.counts()).toEqual(EMPTY);
  });

  test('tells when the next is due', async () => {
    await lane.add([job('a')]);
    const at = Date.now() + 60 * SECOND;
    await lane.delay(await takeOne(lane), undefined, at);
    await lane.add([job('b')]);
    expect(await lane.completeAndTake(await takeOne(lane))).toEqual({ nextAt: at });
  });

  test('takes one that is due by the clock that was given', async () => {
    let time = Date.now() - HOUR;
    const options = { lockMs: LOCK_MS, rescueEveryMs: LOCK_MS, now: () => time };
    const byClock = openLanes(corner.connect(), corner.prefix, options);
    const watched = byClock.lane(laneOf(APP_ID));
    await watched.add([job('a')]);
    await watched.delay(await takeOne(watched), undefined, time + SECOND);
    await watched.add([job('b'), job('c')]);
    const b = await takeOne(watched);
    const c = await takeOne(watched);
    expect(await watched.completeAndTake(b)).toEqual({ nextAt: time + SECOND });
    time += SECOND;
    expect(await watched.completeAndTake(c)).toMatchObject({ job: { id: 'a', starts: 2, returns: 1 } });
    await byClock.close();
  });

  test.each(['while another has it', 'and is gone'])('takes nothing when its lock is lost, %s', async (where) => {
    await lane.add([job('a', 1), job('b', 2)]);
    const lost = await takeOne(lane);
    await loseWorker(corner.redis, lane, 'a');
    // Rescued, it comes before all others.
    const owned = await takeOne(lane);
    if (where === 'and is gone') await lane.complete(owned);
    await expect(lane.completeAndTake(lost)).rejects.toThrow(LockLostError);
    expect(await lane.counts()).toMatchObject({ waiting: 1 });
  });

  test.each([{ opts: 'not json' }, { ats: 'x' }, { ats: '9223372036854775807' }])(
    'takes one with %j all the same',
    async (forged) => {
      await lane.add([job('a', 1), job('b', 2)]);
      const first = await takeOne(lane, 'token');
      await corner.redis.hset(lane.keyOfJob('b'), forged);
      expect(await lane.completeAndTake(first)).toMatchObject({ job: { id: 'b', data: '{"id":"b"}', token: 'token' } });
      expect(await lane.peek('a')).toBeUndefined();
      expect(await lane.counts()).toEqual({ ...EMPTY, active: 1 });
    },
  );

  test('ends although its own counters are none, and what comes next can be taken', async () => {
    await lane.add([job('a', 1), job('b', 2)]);
    const first = await takeOne(lane);
    await corner.redis.hset(lane.keyOfJob('a'), { ats: 'x', atm: 'x' });
    const { job: next = await takeOne(lane) } = (await lane.completeAndTake(first)) as { job?: TakenJob };
    expect(next.id).toBe('b');
    expect(await lane.counts()).toEqual({ ...EMPTY, active: 1 });
  });

  test('ends although the next can not be taken, and says that there may be one', async () => {
    await lane.add([job('a')]);
    const first = await takeOne(lane);
    await corner.redis.set(lane.keyOfJob('delayed'), 'spoilt');
    expect(await lane.completeAndTake(first)).toEqual({ nextAt: 0 });
    expect(await corner.redis.exists(lane.keyOfJob('a'))).toBe(0);
    await expect(lane.take('token')).rejects.toThrow('WRONGTYPE');
  });

  test('is gone, and the next is found, when the step was sent twice since its answer was lost', async () => {
    await lane.add([job('a', 1), job('b', 2)]);
    const first = await takeOne(lane, 'token');
    await lane.completeAndTake(first);
    expect(await lane.completeAndTake(first)).toMatchObject({ job: { id: 'b', data: '{"id":"b"}', token: 'token' } });
    expect(await lane.counts()).toEqual({ ...EMPTY, active: 1 });
  });
});

describe('what others put there', () => {
  /** The inbox as another program writes to it. */
  async function foreign(use: (queue: Queue) => Promise<unknown>): Promise<Lane> {
    const queue = new Queue(INBOX_LANE, { connection: corner.connect(), prefix: corner.prefix });
    await use(queue);
    return lanes.lane(INBOX_LANE);
  }

  test('with a BullMQ client of their own is taken, ids and all', async () => {
    const inbox = await foreign((queue) => queue.add('any name', { mediaId: 'x' }));
    expect(await takeOne(inbox)).toMatchObject({ id: '1', data: '{"mediaId":"x"}', starts: 1, priority: 0 });
  });

  test('with options that are no JSON is taken all the same, and can be got rid of', async () => {
    await lane.add([job('a')]);
    await corner.redis.hset(lane.keyOfJob('a'), 'opts', 'not json');
    const taken = await takeOne(lane);
    expect(taken).toMatchObject({ id: 'a', data: '{"id":"a"}', starts: 1 });
    await lane.fail(taken, 'job-invalid');
    expect(await lane.counts()).toEqual(EMPTY);
  });

  test('with data that is no JSON is taken as it is', async () => {
    await lane.add([job('a')]);
    await corner.redis.hset(lane.keyOfJob('a'), 'data', 'not json');
    expect((await takeOne(lane)).data).toBe('not json');
  });

  test('with many attempts allowed is gone when it is given up', async () => {
    const inbox = await foreign((queue) =>
      queue.add('x', {}, { attempts: 5, removeOnFail: false, removeOnComplete: false }),
    );
    await inbox.fail(await takeOne(inbox), 'job-invalid');
    expect(await inbox.counts()).toEqual(EMPTY);
  });

  test.each(['{', '*', '..', 'a b', '媒体', 'x'.repeat(1_000), 'a/b', '"'])('under the id %j is taken', async (id) => {
    const inbox = await foreign((queue) => queue.add('x', {}, { jobId: id }));
    const taken = await takeOne(inbox);
    expect(taken.id).toBe(id);
    await inbox.complete(taken);
    expect(await inbox.counts()).toEqual(EMPTY);
  });
});

test('nothing of a job is left in Redis when it is done', async () => {
  await lane.add([job('warm')]);
  await lane.complete(await takeOne(lane));
  const before = await keysAndSizes();
  await lane.add(Array.from({ length: 50 }, (_, number) => job(`a${number}`, number + 1)));
  for (let number = 0; number < 50; number += 1) {
    const taken = await takeOne(lane);
    await lane.delay(taken, { tried: true }, Date.now() - 1);
    await (number % 2 === 0 ? lane.complete(await takeOne(lane)) : lane.fail(await takeOne(lane), 'x'));
  }
  const after = await keysAndSizes();
  expect([...after.keys()].filter((key) => !before.has(key))).toEqual([]);
  expect(await lane.counts()).toEqual(EMPTY);
});

test('events serve nobody and are not piled up', async () => {
  for (let round = 0; round < 20; round += 1) {
    await lane.add(Array.from({ length: 50 }, (_, number) => job(`${round}-${number}`)));
    for (let number = 0; number < 50; number += 1) await lane.complete(await takeOne(lane));
  }
  await lane.rescue();
  expect(await corner.redis.xlen(lane.keyOfJob('events'))).toBeLessThan(500);
});

async function keysAndSizes(): Promise<Map<string, string>> {
  const keys = await corner.redis.keys(`${corner.prefix.replace(/[{}]/g, '\\$&')}*`);
  return new Map(
    await Promise.all(keys.map(async (key): Promise<[string, string]> => [key, await corner.redis.type(key)])),
  );
}
