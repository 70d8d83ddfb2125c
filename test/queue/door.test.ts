import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createDeadLetterIndex } from '../../src/dead-letter/dead-letter-index.ts';
import { startRedisServer } from '../../src/demo/redis-server.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import { type OpenIdPolicy, pseudonymOf } from '../../src/media/open-id.ts';
import { createArchivedMarkers } from '../../src/queue/archived-marker.ts';
import { createDoor, type Door, type DoorOptions, PartlyAdmittedError } from '../../src/queue/door.ts';
import { type Lane, type Lanes, laneOf } from '../../src/queue/lane.ts';
import { openLanes } from '../../src/queue/open-lanes.ts';
import { closeRedis, connectRedis, type RedisClient, untilReady } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import { HOUR, iso, MINUTE } from '../../src/time.ts';
import { createAccountBook } from '../../src/weixin/credentials/account-book.ts';
import { createAuthorizations } from '../../src/weixin/credentials/authorizations.ts';
import { testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID, testAccount, testJob } from '../support/jobs.ts';
import { testComponent } from '../support/push.ts';
import { redisExecutable, takeOne, testDoor, testLanes } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';
import { dumpRedis } from '../support/stack.ts';
import { openBreakingWire } from './breaking-wire.ts';

const clock = testClock();
let corner: TestRedis;
let lanes: Lanes;
let lane: Lane;
let door: Door;

beforeEach(async () => {
  corner = await openTestRedis();
  lanes = testLanes(corner);
  lane = lanes.lane(laneOf(APP_ID));
  door = testDoor(corner, lanes, clock);
});

afterEach(async () => {
  await lanes.close();
  await corner[Symbol.asyncDispose]();
});

/** A door of another process. */
function anotherDoor(more: Partial<DoorOptions> = {}): Door {
  return testDoor(corner, testLanes(corner), clock, { redis: corner.connect(), ...more });
}

const ACCEPTED = { accepted: 1, duplicates: 0, rejected: [] };
const DUPLICATE = { accepted: 0, duplicates: 1, rejected: [] };

describe('a media that is new', () => {
  test('lies in the lane of its app, as it was handed in, by its deadline', async () => {
    const job = testJob({ receivedAt: '2026-06-15T11:00:00Z', labels: { shop: '7' } });
    expect(await door.admit([job])).toEqual(ACCEPTED);
    const taken = await takeOne(lane);
    expect(taken).toMatchObject({ id: mediaJobId(job), priority: 242_580 });
    expect(JSON.parse(taken.data)).toEqual(job);
  });

  test('tells the fleet of its app', async () => {
    await door.admit([testJob(), testJob({ appId: OTHER_APP_ID })]);
    expect((await corner.redis.smembers(corner.keys.lanes)).toSorted()).toEqual([APP_ID, OTHER_APP_ID]);
  });

  test('that is about to expire goes before one that came earlier', async () => {
    const [young, old] = [testJob(), testJob({ receivedAt: '2026-06-12T13:00:00Z' })];
    await door.admit([young]);
    await door.admit([old]);
    expect((await takeOne(lane)).id).toBe(mediaJobId(old));
  });

  test('is another media in another app, and as another variant', async () => {
    const job = testJob({ kind: 'voice' });
    const others: MediaJob[] = [job, { ...job, variant: 'hd-voice' }, { ...job, appId: OTHER_APP_ID }];
    expect(await door.admit(others)).toEqual({ accepted: 3, duplicates: 0, rejected: [] });
  });
});

describe('a second push of a media', () => {
  let job: MediaJob;
  beforeEach(async () => {
    job = testJob();
    await door.admit([job]);
  });

  /** The state of the queue must be the same after the push as before. */
  async function pushAgain(): Promise<void> {
    const before = [await lane.counts(), await lane.peek(mediaJobId(job))];
    for (const each of [door, anotherDoor()]) {
      expect(await each.admit([{ ...job, labels: { push: 'second' } }])).toEqual(DUPLICATE);
    }
    expect([await lane.counts(), await lane.peek(mediaJobId(job))]).toEqual(before);
  }

  test('that is waiting does nothing', pushAgain);

  test('that is running does nothing', async () => {
    await takeOne(lane);
    await pushAgain();
  });

  test('that waits for its next try does nothing', async () => {
    await lane.delay(await takeOne(lane), { ...job, ledger: { attempts: [] } }, Date.now() + HOUR);
    await pushAgain();
  });

  test('that is archived does nothing', async () => {
    const markers = createArchivedMarkers(corner.redis, corner.keys, clock.now);
    await markers.mark(mediaJobId(job), { key: 'k' }, clock.now() + HOUR);
    await lane.complete(await takeOne(lane));
    await pushAgain();
  });

  test('that is a dead letter does nothing', async () => {
    await corner.redis.zadd(corner.keys.deadByTime, clock.now(), mediaJobId(job));
    await lane.fail(await takeOne(lane), 'media-expired');
    await pushAgain();
  });

  test('that was discarded does nothing', async () => {
    const index = createDeadLetterIndex(corner.redis, corner.keys, clock.now);
    await index.discard(mediaJobId(job), iso(clock.now() + HOUR));
    await lane.fail(await takeOne(lane), 'invalid-media-id');
    await pushAgain();
  });

  test('of which nothing is known any more is accepted again', async () => {
    await lane.complete(await takeOne(lane));
    expect(await door.admit([job])).toEqual(ACCEPTED);
  });
});

describe('one call', () => {
  test('takes what is right, drops what is double and tells what is wrong, each at its place', async () => {
    const [known, fresh] = [testJob(), testJob()];
    await door.admit([known]);
    expect(await door.admit([fresh, null, known, fresh, testJob({ mediaId: 'a:b' })])).toEqual({
      accepted: 1,
      duplicates: 2,
      rejected: [
        { index: 1, mistakes: [expect.stringMatching(/^job: /)] },
        { index: 4, mistakes: [expect.stringMatching(/^mediaId: /)] },
      ],
    });
    expect((await lane.counts()).waiting).toBe(2);
  });

  test('of nothing does nothing', async () => {
    expect(await door.admit([])).toEqual({ accepted: 0, duplicates: 0, rejected: [] });
  });

  test('takes thousands, over several apps, and the same ones again without effect', async () => {
    const jobs = Array.from({ length: 2_600 }, (_, index) =>
      testJob({ appId: index % 4 === 0 ? OTHER_APP_ID : APP_ID }),
    );
    expect(await door.admit(jobs)).toEqual({ accepted: 2_600, duplicates: 0, rejected: [] });
    expect(await anotherDoor().admit(jobs)).toEqual({ accepted: 0, duplicates: 2_600, rejected: [] });
    expect((await lane.counts()).waiting).toBe(1_950);
    expect((await lanes.lane(laneOf(OTHER_APP_ID)).counts()).waiting).toBe(650);
  });

  test('looks again for an app that it does not know yet, and only then', async () => {
    const known = new Set([APP_ID]);
    let looks = 0;
    const apps = {
      has: (appId: string) => known.has(appId),
      refresh: async () => {
        looks += 1;
        known.add(OTHER_APP_ID);
      },
    };
    const strict = anotherDoor({ apps });
    expect(await strict.admit([testJob()])).toEqual(ACCEPTED);
    expect(looks).toBe(0);
    expect(await strict.admit([testJob({ appId: OTHER_APP_ID })])).toEqual(ACCEPTED);
    expect((await strict.admit([testJob({ appId: 'wx9999999999999999' })])).rejected).toHaveLength(1);
    expect(looks).toBe(2);
  });

  test('where Redis refuses to tell of more apps, rejects the jobs of unknown ones alone', async () => {
    const component = testComponent();
    await corner.redis.lpush(corner.keys.authorizersVersion(component.appId), 'a list');
    const apps = createAccountBook([testAccount(APP_ID)], [component], createAuthorizations(corner.redis, corner.keys));
    const strict = anotherDoor({ apps });
    const [job, other] = [testJob(), testJob({ appId: OTHER_APP_ID })];
    const error = await strict.admitEach([job, other, {}, other]).catch((reason: unknown) => reason);
    if (!(error instanceof PartlyAdmittedError)) throw new Error('it is whole', { cause: error });
    expect(error.answers).toEqual(['accepted', undefined, { mistakes: expect.any(Array) }, undefined]);
    await expect(strict.admit([other])).rejects.toThrow('WRONGTYPE');
    expect(await strict.admit([job])).toEqual(DUPLICATE);
    await corner.redis.del(corner.keys.authorizersVersion(component.appId));
    expect((await strict.admit([other])).rejected).toHaveLength(1);
  });

  test('where the look for more apps breaks off, takes nothing', async () => {
    const apps = { has: (appId: string) => appId === APP_ID, refresh: () => Promise.reject(new Error('it broke')) };
    await expect(anotherDoor({ apps }).admit([testJob(), testJob({ appId: OTHER_APP_ID })])).rejects.toThrow(
      'it broke',
    );
    expect((await lane.counts()).waiting).toBe(0);
  });

  test('refuses an app that is not configured, where the door knows the apps', async () => {
    const strict = anotherDoor({ apps: new Set([APP_ID]) });
    const { accepted, rejected } = await strict.admit([testJob(), testJob({ appId: OTHER_APP_ID })]);
    expect(accepted).toBe(1);
    expect(rejected).toEqual([{ index: 1, mistakes: [`appId: ${OTHER_APP_ID} is not configured`] }]);
    expect(await corner.redis.smembers(corner.keys.lanes)).toEqual([APP_ID]);
  });
});

describe('an add that Redis breaks off half-way', () => {
  const key = (name: string): string => lane.keyOfJob(name);
  const overwritten = (name: string, value = 'x') => ({
    what: `${name} is a text`,
    spoil: async () => void (await corner.redis.set(key(name), value)),
    mend: async () => void (await corner.redis.del(key(name))),
  });
  const cases = [overwritten('prioritized'), overwritten('events'), overwritten('pc', 'abc'), overwritten('marker')];

  test.each(cases)('leaves nothing that stands in the way of the next try: $what', async ({ spoil, mend }) => {
    const job = testJob();
    await spoil();
    await expect(door.admit([job])).rejects.toThrow();
    await mend();
    const { accepted, duplicates } = await anotherDoor().admit([job]);
    expect(accepted + duplicates).toBe(1);
    expect((await lane.counts()).waiting).toBe(1);
    expect((await takeOne(lane)).id).toBe(mediaJobId(job));
  });

  test('of one app keeps no other out, nor those that are handed in with it', async () => {
    const [spoilt, sound] = [testJob(), testJob({ appId: OTHER_APP_ID })];
    await corner.redis.set(key('prioritized'), 'x');
    const error = await door.admitEach([spoilt, sound, {}]).catch((reason: unknown) => reason);
    if (!(error instanceof PartlyAdmittedError)) throw new Error('it is whole', { cause: error });
    expect(error.answers).toEqual([undefined, 'accepted', { mistakes: expect.any(Array) }]);
    expect(error.cause).toMatchObject({ message: expect.stringContaining('WRONGTYPE') });
    expect((await lanes.lane(laneOf(OTHER_APP_ID)).counts()).waiting).toBe(1);
    await expect(door.admit([spoilt])).rejects.toThrow('WRONGTYPE');
  });
});

describe('a job that looks like one that was left half-way', () => {
  test.each(['waiting', 'taken', 'delayed'])('is left alone while it is %s', async (state) => {
    const job = testJob();
    await door.admit([job]);
    const taken = state === 'waiting' ? undefined : await takeOne(lane);
    if (taken !== undefined && state === 'delayed') await lane.delay(taken, undefined, clock.now() + HOUR);
    expect(await lane.dropStranded([mediaJobId(job), 'another'])).toEqual([]);
    expect(await door.admit([job])).toEqual(DUPLICATE);
    expect(await lane.peek(mediaJobId(job))).toBeDefined();
  });

  test('is left alone where a state of its lane can not be read', async () => {
    const job = testJob();
    await door.admit([job]);
    await corner.redis.rename(lane.keyOfJob('prioritized'), lane.keyOfJob('elsewhere'));
    await corner.redis.set(lane.keyOfJob('delayed'), 'x');
    await expect(lane.dropStranded([mediaJobId(job)])).rejects.toThrow('WRONGTYPE');
    await corner.redis.del(lane.keyOfJob('delayed'));
    expect(await lane.peek(mediaJobId(job))).toBeUndefined();
    expect(await lane.dropStranded([mediaJobId(job)])).toEqual([mediaJobId(job)]);
  });
});

test('doors that race each other with the same media queue it once', async () => {
  const jobs = Array.from({ length: 50 }, () => testJob());
  const doors = Array.from({ length: 6 }, () => anotherDoor());
  const admissions = await Promise.all(doors.flatMap((each) => [each.admit(jobs), each.admit(jobs.toReversed())]));
  expect((await lane.counts()).waiting).toBe(50);
  for (const { accepted, duplicates } of admissions) expect(accepted + duplicates).toBe(50);
  expect(admissions.reduce((sum, { accepted }) => sum + accepted, 0)).toBeGreaterThanOrEqual(50);
});

describe('the openId of a sender', () => {
  const openId = 'oSENDERwhoseNameMustNotLeak';
  const key = new Secret('operator key');
  const policies: [OpenIdPolicy, string | undefined][] = [
    [{ type: 'none' }, undefined],
    [{ type: 'hmac', key }, pseudonymOf(APP_ID, openId, key)],
  ];

  test.each(policies)('never reaches Redis by the policy %o', async (policy, kept) => {
    const strict = anotherDoor({ openId: policy });
    const job = testJob({ source: { openId, messageId: '1' } });
    await strict.admit([job, { ...testJob(), openId }, testJob({ mediaId: `${openId}:` }), testJob({ appId: openId })]);
    await strict.admit([job]);
    expect(await dumpRedis(corner.redis)).not.toContain(openId);
    const stored = JSON.parse((await lane.peek(mediaJobId(job)))?.data ?? '') as MediaJob;
    expect(stored.source).toEqual(kept === undefined ? { messageId: '1' } : { messageId: '1', openId: kept });
  });
});

describe('an enqueue that fails', () => {
  test('because Redis is full rejects, and the same media is accepted once there is room', async () => {
    await using parts = new AsyncDisposableStack();
    const directory = await mkdtemp(join(tmpdir(), 'weixin-media-door-'));
    parts.defer(() => rm(directory, { recursive: true, force: true }));
    const server = parts.use(await startRedisServer(redisExecutable(), { directory, appendOnly: false }));
    const prefix = '{full}';
    const redis = hasty(server.url, prefix);
    parts.defer(() => closeRedis(redis));
    await untilReady(redis, AbortSignal.timeout(30_000));
    const own = openLanes(redis, prefix, { lockMs: MINUTE, rescueEveryMs: MINUTE });
    const options = { redis, keys: redisKeys(prefix), lanes: own, mediaTtlMs: 72 * HOUR, now: clock.now };
    const full = createDoor({ ...options, openId: { type: 'none' } });
    const job = testJob();

    await full.admit([testJob()]);
    await redis.config('SET', 'maxmemory', '1');
    await expect(full.admit([job])).rejects.toThrow(/OOM/);
    await expect(full.admit([testJob({ appId: OTHER_APP_ID })])).rejects.toThrow(/OOM/);
    await redis.config('SET', 'maxmemory', '0');

    expect(await full.admit([job])).toEqual(ACCEPTED);
    expect(await full.admit([job])).toEqual(DUPLICATE);
    expect(await full.admit([testJob({ appId: OTHER_APP_ID })])).toEqual(ACCEPTED);
    expect(await redis.smembers(redisKeys(prefix).lanes)).toContain(OTHER_APP_ID);
    expect((await own.lane(laneOf(APP_ID)).counts()).waiting).toBe(2);
    await own.close();
  });

  const breaks = [1, 2, 3].flatMap((message) => [true, false].map((delivered) => ({ message, delivered })));

  test.each(breaks)(
    'because the connection breaks at message $message (delivered: $delivered) keeps neither that media nor the next out',
    async ({ message, delivered }) => {
      await using wire = await openBreakingWire(corner.url);
      const redis = hasty(wire.url, corner.prefix);
      const shaky = testDoor(corner, testLanes(corner, redis), clock, { redis });
      const job = testJob();
      await untilReady(redis, AbortSignal.timeout(30_000));
      wire.breakAt(message, delivered);
      const admitted = await shaky.admit([job]).catch(() => undefined);
      // Whatever was promised is there, and whatever was not may be handed in again.
      expect(admitted === undefined).toBe(wire.mend());
      if (admitted !== undefined) expect((await lane.counts()).waiting).toBe(1);

      await untilReady(redis, AbortSignal.timeout(30_000));
      const { accepted, duplicates } = await shaky.admit([job, testJob()]);
      expect(accepted + duplicates).toBe(2);
      expect((await lane.counts()).waiting).toBe(2);
      expect(await corner.redis.smembers(corner.keys.lanes)).toEqual([APP_ID]);
      redis.disconnect();
    },
  );
});

test('an enqueue that is ended queues whole batches up to then, and nothing after', async () => {
  const controller = new AbortController();
  const add: Lane['add'] = async (jobs) => {
    await lane.add(jobs);
    controller.abort(new Error('no time left'));
  };
  const ending = testDoor(corner, { ...lanes, lane: () => ({ ...lane, add }) }, clock);
  const jobs = Array.from({ length: 1_001 }, () => testJob());
  await expect(ending.admit(jobs, controller.signal)).rejects.toThrow('no time left');
  expect((await lane.counts()).waiting).toBe(500);
  expect(await door.admit(jobs)).toEqual({ accepted: 501, duplicates: 500, rejected: [] });
  await expect(door.admitEach([testJob()], controller.signal)).rejects.toThrow('no time left');
});

/** A connection as a producer has it. */
function hasty(url: string, prefix: string): RedisClient {
  return connectRedis({ url: new Secret(url), prefix, sentinelMaster: '' }, 'hasty', 'test', () => undefined);
}
