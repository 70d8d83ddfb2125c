import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { failure } from '../../src/failure.ts';
import { createGates, type Gates } from '../../src/queue/gates.ts';
import { MINUTE, SECOND } from '../../src/time.ts';
import { always, type TestClock, testClock } from '../support/clock.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const FROZEN = failure('app-secret-frozen', {
  errcode: 40243,
  errmsg: 'AppSecret frozen',
  detail: 'since noon',
  rid: 'r',
});

let corner: TestRedis;
let clock: TestClock;
let gates: Gates;

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock();
  gates = worker();
});

afterEach(() => corner[Symbol.asyncDispose]());

/** The gates as another worker sees them. */
function worker(): Gates {
  return createGates(corner.connect(), corner.keys, clock.now, clock.now, always(0));
}

describe('a gate that is closed', () => {
  test('says why, since when, and when the next probe is', async () => {
    const expected = {
      appId: APP_ID,
      reason: 'app-secret-frozen',
      closedAt: clock.now(),
      probeAt: clock.now() + 5 * MINUTE,
      errcode: 40243,
      errmsg: 'AppSecret frozen',
      detail: 'since noon',
    };
    expect(await gates.close(APP_ID, 'app-secret-frozen', FROZEN)).toEqual({ gate: expected, wasOpen: true });
    expect(gates.closed(APP_ID)).toEqual(expected);
    expect(await worker().list()).toEqual([expected]);
  });

  test('is no concern of other apps', async () => {
    await gates.close(APP_ID, 'rate-limited', failure('rate-limited'));
    expect(gates.closed(OTHER_APP_ID)).toBeUndefined();
  });

  test('is seen by other workers a second later at most', async () => {
    const other = worker();
    await other.refresh();
    await gates.close(APP_ID, 'rate-limited', failure('rate-limited'));
    clock.advance(SECOND);
    await other.refresh();
    expect(other.closed(APP_ID)?.reason).toBe('rate-limited');
  });

  test('and closed again, puts the probe off and keeps its beginning', async () => {
    const closedAt = clock.now();
    await gates.close(APP_ID, 'rate-limited', failure('rate-limited'));
    clock.advance(MINUTE);
    const { gate, wasOpen } = await worker().close(APP_ID, 'quota-exhausted', failure('quota-exhausted'));
    expect(wasOpen).toBe(false);
    expect(gate).toMatchObject({ reason: 'quota-exhausted', closedAt });
    expect(gate.probeAt).toBeGreaterThan(clock.now());
  });

  test('stays closed however much time passes', async () => {
    await gates.close(APP_ID, 'rate-limited', failure('rate-limited'));
    clock.advance(30 * 24 * 60 * MINUTE);
    await gates.refresh();
    expect(gates.closed(APP_ID)).toBeDefined();
    expect(await corner.redis.pttl(corner.keys.gates)).toBe(-1);
  });

  test('is opened by one worker for all, once', async () => {
    const other = worker();
    await gates.close(APP_ID, 'rate-limited', failure('rate-limited'));
    await other.refresh();
    expect(await gates.open(APP_ID)).toBe(true);
    expect(await other.open(APP_ID)).toBe(false);
    expect([gates.closed(APP_ID), other.closed(APP_ID)]).toEqual([undefined, undefined]);
    expect(await gates.list()).toEqual([]);
  });

  test('opened by another, is seen open a second later at most', async () => {
    const other = worker();
    await gates.close(APP_ID, 'rate-limited', failure('rate-limited'));
    await other.refresh();
    await gates.open(APP_ID);
    clock.advance(SECOND);
    await other.refresh();
    expect(other.closed(APP_ID)).toBeUndefined();
  });
});

test('Redis is asked about gates once a second, not at every turn', async () => {
  await gates.refresh();
  await worker().close(APP_ID, 'rate-limited', failure('rate-limited'));
  clock.advance(SECOND - 1);
  await gates.refresh();
  expect(gates.closed(APP_ID)).toBeUndefined();
});

describe('a look at a closed gate', () => {
  test('is one worker’s at a time', async () => {
    const looks = await Promise.all([gates, worker(), worker()].map((each) => each.mayLook(APP_ID)));
    expect(looks.filter(Boolean)).toHaveLength(1);
    expect(await worker().mayLook(OTHER_APP_ID)).toBe(true);
  });

  test('is the next one’s when that worker died with it', async () => {
    await gates.mayLook(APP_ID);
    await corner.redis.pexpire(corner.keys.probe(APP_ID), 1);
    expect(await eventually(async () => ((await worker().mayLook(APP_ID)) ? true : undefined))).toBe(true);
  });

  test('is not held for ever', async () => {
    await gates.mayLook(APP_ID);
    const leftMs = await corner.redis.pttl(corner.keys.probe(APP_ID));
    expect(leftMs).toBeGreaterThan(0);
    expect(leftMs).toBeLessThanOrEqual(15 * SECOND);
  });
});

test.each(['not json', '{}', '{"appId":1}', '{"appId":"x","reason":"constructor","closedAt":1,"probeAt":1}'])(
  'a record that is no gate (%s) stops nobody, and makes way',
  async (text) => {
    await corner.redis.hset(corner.keys.gates, APP_ID, text);
    await gates.refresh();
    expect(gates.closed(APP_ID)).toBeUndefined();
    expect((await gates.close(APP_ID, 'rate-limited', failure('rate-limited'))).wasOpen).toBe(true);
    expect(await gates.list()).toHaveLength(1);
  },
);
