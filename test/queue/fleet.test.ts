import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createFleet, type Fleet, type FleetWorker, HEARTBEAT_MS } from '../../src/queue/fleet.ts';
import { SECOND } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let clock: TestClock;
let fleet: Fleet;

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock();
  fleet = createFleet(corner.redis, corner.keys, clock.now);
});

afterEach(() => corner[Symbol.asyncDispose]());

function worker(id: string, inFlight = 0): FleetWorker {
  return { id, host: 'h', pid: 7, version: '1', startedAt: '2026-06-15T12:00:00Z', concurrency: 32, inFlight };
}

describe('the list of workers', () => {
  test('has those that beat, as they said last', async () => {
    await fleet.beat(worker('a', 1));
    await fleet.beat(worker('b'));
    await fleet.beat(worker('a', 2));
    expect((await fleet.list()).toSorted((x, y) => x.id.localeCompare(y.id))).toEqual([worker('a', 2), worker('b')]);
  });

  test('has none at first', async () => {
    expect(await fleet.list()).toEqual([]);
  });

  test('loses those that leave', async () => {
    await fleet.beat(worker('a'));
    await fleet.leave('a');
    await fleet.leave('a');
    expect(await fleet.list()).toEqual([]);
  });

  test('loses those that are heard of no more, and remembers them nowhere', async () => {
    await fleet.beat(worker('a'));
    expect(await corner.redis.pttl(corner.keys.worker('a'))).toBeGreaterThan(2 * HEARTBEAT_MS);
    await corner.redis.pexpire(corner.keys.worker('a'), 1);
    await eventually(async () => ((await fleet.list()).length === 0 ? true : undefined));
    expect(await corner.redis.exists(corner.keys.workers)).toBe(0);
  });

  test.each(['not json', '{}', 'null'])('passes over what is no worker (%s)', async (text) => {
    await fleet.beat(worker('a'));
    await fleet.beat(worker('b'));
    await corner.redis.set(corner.keys.worker('a'), text);
    expect(await fleet.list()).toEqual([worker('b')]);
  });
});

describe('an app', () => {
  test('is served while some worker says so', async () => {
    expect(await fleet.isServed(APP_ID)).toBe(false);
    await fleet.serve([APP_ID]);
    clock.advance(29 * SECOND);
    expect(await fleet.isServed(APP_ID)).toBe(true);
    expect(await fleet.isServed(OTHER_APP_ID)).toBe(false);
  });

  test('is served no more when all who did are silent', async () => {
    await fleet.serve([APP_ID, OTHER_APP_ID]);
    clock.advance(20 * SECOND);
    await fleet.serve([OTHER_APP_ID]);
    clock.advance(10 * SECOND);
    expect([await fleet.isServed(APP_ID), await fleet.isServed(OTHER_APP_ID)]).toEqual([false, true]);
  });

  test('of a worker without any is no error', async () => {
    await fleet.serve([]);
  });
});
