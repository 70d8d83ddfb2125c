import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { DeadLetterSummary } from '../../src/dead-letter/dead-letter.ts';
import {
  createDeadLetterIndex,
  type DeadLetterFilter,
  type DeadLetterIndex,
} from '../../src/dead-letter/dead-letter-index.ts';
import { closeRedis, connectRedis } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import { DAY, iso } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { openOwnRedis } from '../support/own-redis.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let clock: TestClock;
let index: DeadLetterIndex;

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock();
  index = createDeadLetterIndex(corner.redis, corner.keys, clock.now);
});

afterEach(() => corner[Symbol.asyncDispose]());

function summary(name: string, fields: Partial<DeadLetterSummary> = {}): DeadLetterSummary {
  const appId = fields.appId ?? APP_ID;
  return {
    jobId: `${appId}-${name}`,
    key: `dead-letters/app=${appId}/dt=2026-06-15/${name}.json`,
    appId,
    mediaId: name,
    reason: 'invalid-media-id',
    diedAt: iso(clock.now()),
    deadline: null,
    attempts: 2,
    ...fields,
  };
}

async function listed(filter: DeadLetterFilter = {}): Promise<string[]> {
  const found = await Array.fromAsync(index.list(filter));
  return found.map(({ mediaId }) => mediaId);
}

test('what was added is found again, as it was', async () => {
  const letter = summary('a', { errcode: 40007, deadline: '2026-06-18T11:00:00.000Z' });
  await index.add(letter);
  expect(await index.get(letter.jobId)).toEqual(letter);
  expect(await index.count()).toBe(1);
  expect(await index.hasAny([letter.jobId, `${APP_ID}-b`])).toEqual([true, false]);
  expect(await index.hasAny([])).toEqual([]);
});

describe('what is discarded', () => {
  const ttl = (): Promise<number> => corner.redis.pttl(corner.keys.discarded(`${APP_ID}-a`));

  test.each([
    ['a day after its deadline', 2 * DAY, 3 * DAY],
    ['a day from now when its deadline is long past', -9 * DAY, DAY],
  ])('leaves the list and is known until %s', async (_when, deadline, expected) => {
    const letter = summary('a', { deadline: iso(clock.now() + deadline) });
    await index.add(letter);
    await index.discard(letter.jobId, letter.deadline);
    await index.discard(letter.jobId, letter.deadline);
    expect(await listed()).toEqual([]);
    expect(await index.get(letter.jobId)).toBeUndefined();
    expect(Math.abs((await ttl()) - expected)).toBeLessThan(30_000);
  });

  test.each([null, 'someday'])('and has the deadline %j leaves the list and is not known', async (deadline) => {
    await index.add(summary('a'));
    await index.discard(`${APP_ID}-a`, deadline);
    expect(await listed()).toEqual([]);
    expect(await ttl()).toBe(-2);
  });

  test('stays listed, and is not known, while a full Redis takes no note', async () => {
    await using own = await openOwnRedis({ appendOnly: false });
    const config = { url: new Secret(own.url), prefix: '{x}', sentinelMaster: '' };
    const redis = connectRedis(config, 'patient', 'test', () => undefined);
    const full = createDeadLetterIndex(redis, redisKeys('{x}'), clock.now);
    try {
      await full.add(summary('a'));
      await redis.config('SET', 'maxmemory', '1');
      await expect(full.discard(`${APP_ID}-a`, iso(clock.now()))).rejects.toThrow();
      expect(await full.count()).toBe(1);
    } finally {
      await closeRedis(redis);
    }
  });
});

test('adding twice is one letter, the later one', async () => {
  await index.add(summary('a', { attempts: 1 }));
  clock.advance(DAY);
  await index.add(summary('a', { attempts: 7 }));
  expect(await index.count()).toBe(1);
  expect(await Array.fromAsync(index.list({}))).toEqual([summary('a', { attempts: 7 })]);
});

test('what was removed is gone, and removing it again does nothing', async () => {
  await index.add(summary('a'));
  await index.remove(`${APP_ID}-a`);
  await index.remove(`${APP_ID}-a`);
  expect(await index.get(`${APP_ID}-a`)).toBeUndefined();
  expect(await listed()).toEqual([]);
  expect(await corner.redis.exists(corner.keys.deadByTime, corner.keys.deadRecords)).toBe(0);
});

describe('a list', () => {
  const START = Date.parse('2026-06-15T12:00:00Z');

  beforeEach(async () => {
    await index.add(summary('c', { diedAt: iso(START + 2_000), reason: 'media-too-large', appId: OTHER_APP_ID }));
    await index.add(summary('a', { diedAt: iso(START), errcode: 40007 }));
    await index.add(summary('d', { diedAt: iso(START + 3_000), errcode: -1 }));
    await index.add(summary('b', { diedAt: iso(START + 1_000), errcode: 40007, appId: OTHER_APP_ID }));
  });

  test.each<[DeadLetterFilter, string[]]>([
    [{}, ['a', 'b', 'c', 'd']],
    [{ appId: OTHER_APP_ID }, ['b', 'c']],
    [{ reason: 'media-too-large' }, ['c']],
    [{ errcode: 40007 }, ['a', 'b']],
    [{ errcode: -1 }, ['d']],
    [{ since: START + 1_000 }, ['b', 'c', 'd']],
    [{ until: START + 1_000 }, ['a', 'b']],
    [{ since: START + 1_000, until: START + 2_000 }, ['b', 'c']],
    [{ since: START + 1_001, until: START + 1_999 }, []],
    [{ limit: 2 }, ['a', 'b']],
    [{ errcode: 40007, limit: 1 }, ['a']],
    [{ appId: OTHER_APP_ID, errcode: 40007, since: START }, ['b']],
    [{ reason: 'media-expired' }, []],
  ])('with %o goes by the time of death', async (filter, expected) => {
    expect(await listed(filter)).toEqual(expected);
  });
});

test('every letter is listed once, however many died in the same millisecond', async () => {
  const START = Date.parse('2026-06-15T12:00:00Z');
  const groups = fc.array(fc.integer({ min: 1, max: 900 }), { minLength: 1, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(groups, async (sizes) => {
      await corner.redis.del(corner.keys.deadByTime, corner.keys.deadRecords);
      const letters = sizes.flatMap((size, moment) =>
        Array.from({ length: size }, (_, n) => summary(`${moment}-${n}`, { diedAt: iso(START + moment) })),
      );
      const pipeline = corner.redis.pipeline();
      for (const letter of letters) {
        pipeline.hset(corner.keys.deadRecords, letter.jobId, JSON.stringify(letter));
        pipeline.zadd(corner.keys.deadByTime, Date.parse(letter.diedAt), letter.jobId);
      }
      await pipeline.exec();
      const found = await listed();
      expect(found.toSorted()).toEqual(letters.map(({ mediaId }) => mediaId).toSorted());
      expect(found.map((name) => name.split('-')[0])).toEqual(found.map((name) => name.split('-')[0]).toSorted());
    }),
    { numRuns: 12 },
  );
});

test('a list goes on behind any letter, also one that is gone and among those of the same millisecond', async () => {
  const letters: DeadLetterSummary[] = [];
  // Redis orders them by bytes: upper case before lower case, and both before the rest.
  for (const name of ['Z', 'a', 'b', 'é', '\uffff', '\u{1f600}']) letters.push(summary(name));
  clock.advance(1);
  letters.push(summary('Y'));
  for (const letter of letters) await index.add(letter);
  const names = letters.map(({ mediaId }) => mediaId);
  expect(await listed()).toEqual(names);
  for (const [place, after] of letters.entries()) {
    expect(await listed({ after })).toEqual(names.slice(place + 1));
    expect(await listed({ after, limit: 2 })).toEqual(names.slice(place + 1, place + 3));
  }
  const [, gone] = letters;
  if (gone === undefined) throw new Error('no letter');
  await index.remove(gone.jobId);
  expect(await listed({ after: gone })).toEqual(names.slice(2));
  expect(await listed({ after: gone, since: clock.now() })).toEqual(['Y']);
  expect(await listed({ after: { jobId: '', diedAt: iso(clock.now() + 1) } })).toEqual([]);
});

test('a list ends when it is told to', async () => {
  await index.add(summary('a'));
  const signal = AbortSignal.abort(new Error('enough'));
  await expect(Array.fromAsync(index.list({}, signal))).rejects.toThrow('enough');
});

test('a record that cannot be read does not hide the others', async () => {
  await index.add(summary('a'));
  await index.add(summary('b'));
  await index.add(summary('c'));
  await corner.redis.hset(corner.keys.deadRecords, `${APP_ID}-a`, '{"broken', `${APP_ID}-b`, '{"v":2}');
  expect(await listed()).toEqual(['c']);
  expect(await index.get(`${APP_ID}-a`)).toBeUndefined();
  // The door still knows that it is dead.
  expect(await index.hasAny([`${APP_ID}-a`])).toEqual([true]);
});

test('what died a month ago leaves with the next death, some at a time', async () => {
  for (let n = 0; n < 25; n += 1) await index.add(summary(`old-${n}`));
  clock.advance(30 * DAY + 1);
  await index.add(summary('new-1'));
  expect(await index.count()).toBe(6);
  await index.add(summary('new-2'));
  expect(await listed()).toEqual(['new-1', 'new-2']);
  expect(await corner.redis.hlen(corner.keys.deadRecords)).toBe(2);
});

test('a full Redis does not take a letter, and says so', async () => {
  await using own = await openOwnRedis({ appendOnly: false });
  const config = { url: new Secret(own.url), prefix: '{x}', sentinelMaster: '' };
  const redis = connectRedis(config, 'patient', 'test', () => undefined);
  const full = createDeadLetterIndex(redis, redisKeys('{x}'), clock.now);
  try {
    await redis.config('SET', 'maxmemory', '1');
    await expect(full.add(summary('a'))).rejects.toThrow();
    expect(await full.count()).toBe(0);
    await redis.config('SET', 'maxmemory', '0');
    await full.add(summary('a'));
    expect(await full.count()).toBe(1);
  } finally {
    await closeRedis(redis);
  }
});
