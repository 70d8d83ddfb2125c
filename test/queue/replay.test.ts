import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type DeadLetterSummary, invalidJobId } from '../../src/dead-letter/dead-letter.ts';
import { failure } from '../../src/failure.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import type { Lanes } from '../../src/queue/lane.ts';
import { type Replayed, type ReplayOptions, replay } from '../../src/queue/replay.ts';
import { parseStoredJob } from '../../src/queue/stored-job.ts';
import { deadLetterKey } from '../../src/store/object-keys.ts';
import { HOUR, iso, SECOND } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import {
  failing,
  letterOf,
  never,
  openTestStore,
  type TestStore,
  type TestWorker,
  takeOne,
  testWorker,
  whereabouts,
} from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let bucket: TestStore;
let corner: TestRedis;
let clock: TestClock;
let by: TestWorker;

beforeAll(async () => {
  bucket = await openTestStore();
});

afterAll(() => bucket[Symbol.asyncDispose]());

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock(Date.now());
  by = worker();
});

afterEach(() => corner[Symbol.asyncDispose]());

function worker(): TestWorker {
  return testWorker({
    corner,
    store: bucket.store,
    clock,
    attempt: failing(failure('media-too-large', { detail: '1' })),
  });
}

/** A media that has died an hour after it was sent. */
async function dead(): Promise<{ readonly job: MediaJob; readonly summary: DeadLetterSummary }> {
  const job = testJob({ receivedAt: iso(clock.now() - HOUR) });
  await by.door.admit([job]);
  await by.runNext();
  const summary = await by.index.get(mediaJobId(job));
  if (summary === undefined) throw new Error('it did not die');
  clock.advance(SECOND);
  return { job, summary };
}

function putBack(
  summary: DeadLetterSummary,
  more: Partial<ReplayOptions> = {},
  lanes: Lanes = by.lanes,
): Promise<Replayed> {
  const { deadLetters } = by;
  const parts = { redis: corner.redis, keys: corner.keys, lanes, deadLetters, mediaTtlMs: 72 * HOUR, now: clock.now };
  const options = { note: { by: 'op', reason: 'limit raised' }, includeExpired: false, dryRun: false, ...more };
  return replay(parts, summary, options, never);
}

describe('a dead letter that is replayed', () => {
  test('is work again, with a fresh history, and is no dead letter any more', async () => {
    const { job, summary } = await dead();
    expect(await putBack(summary)).toEqual({ outcome: 'replayed' });
    expect(await whereabouts(by, job)).toMatchObject({ inLane: 'prioritized', listed: undefined, letter: 'replayed' });
    const parsed = parseStoredJob((await takeOne(by.lane)).data);
    expect(parsed).toEqual({ ok: true, stored: { job, ledger: { attempts: [], replayed: true } } });
  });

  test('remembers who did it and why', async () => {
    const { job, summary } = await dead();
    await putBack(summary);
    expect((await letterOf(by, job))?.replays).toEqual([{ at: iso(clock.now()), by: 'op', reason: 'limit raised' }]);
  });

  test('tells the fleet of its app, which Redis may have forgotten', async () => {
    const { summary } = await dead();
    await corner.redis.del(corner.keys.lanes);
    await putBack(summary);
    expect(await corner.redis.smembers(corner.keys.lanes)).toEqual([APP_ID]);
  });

  test('goes to the place of its deadline', async () => {
    const { job, summary } = await dead();
    const [sooner, later] = [71 * HOUR, 0].map((ageMs) => testJob({ receivedAt: iso(clock.now() - ageMs) }));
    await by.door.admit([later, sooner]);
    await putBack(summary);
    const order = [await takeOne(by.lane), await takeOne(by.lane), await takeOne(by.lane)].map(({ id }) => id);
    expect(order).toEqual([sooner, job, later].map((each) => mediaJobId(each ?? job)));
  });

  test('twice is one job', async () => {
    const { job, summary } = await dead();
    expect(await Promise.all([putBack(summary), putBack(summary)])).toEqual(
      expect.arrayContaining([{ outcome: 'replayed' }, { outcome: 'skipped', why: 'under-way' }]),
    );
    expect(await putBack(summary)).toEqual({ outcome: 'skipped', why: 'not-open' });
    expect(await by.lane.counts()).toMatchObject({ waiting: 1, active: 0 });
    expect((await letterOf(by, job))?.replays).toHaveLength(1);
  });

  test('after a replay that was broken off before the list was told, is the job that is there', async () => {
    const { job, summary } = await dead();
    await putBack(summary);
    await by.index.add(summary);
    expect(await putBack(summary)).toEqual({ outcome: 'replayed' });
    expect(await by.lane.counts()).toMatchObject({ waiting: 1 });
    expect(await whereabouts(by, job)).toMatchObject({ listed: undefined, letter: 'replayed' });
    expect((await letterOf(by, job))?.replays).toHaveLength(1);
  });

  test('and dies again at once, before the replay has ended, stays among the dead letters', async () => {
    const { job, summary } = await dead();
    // Another worker is quicker than the operator's command, which has been held up.
    const quick: Lanes = {
      ...by.lanes,
      lane: (name) => ({
        ...by.lanes.lane(name),
        add: async (jobs) => {
          await by.lanes.lane(name).add(jobs);
          await worker().runNext();
        },
      }),
    };
    await putBack(summary, {}, quick);
    expect(await whereabouts(by, job)).toMatchObject({ inLane: undefined, listed: 'media-too-large', letter: 'open' });
  });
});

describe('a replay', () => {
  /** Tries a replay that must leave everything as it is. */
  async function expectNothing(job: MediaJob, done: Promise<Replayed>, outcome: Replayed): Promise<void> {
    const before = [await whereabouts(by, job), await letterOf(by, job)];
    expect(await done).toEqual(outcome);
    expect([await whereabouts(by, job), await letterOf(by, job)]).toEqual(before);
  }

  test('that is but tried out says what would be done, and does nothing', async () => {
    const { job, summary } = await dead();
    await expectNothing(job, putBack(summary, { dryRun: true }), { outcome: 'replayed' });
    expect((await whereabouts(by, job)).listed).toBe('media-too-large');
  });

  test('of a media that has expired is skipped, unless that is asked for', async () => {
    const { job, summary } = await dead();
    clock.advance(71 * HOUR - SECOND);
    await expectNothing(job, putBack(summary), { outcome: 'skipped', why: 'expired' });
    expect(await putBack(summary, { includeExpired: true, dryRun: true })).toEqual({ outcome: 'replayed' });
    expect(await putBack(summary, { includeExpired: true })).toEqual({ outcome: 'replayed' });
    expect((await whereabouts(by, job)).inLane).toBe('prioritized');
  });

  test('of a media in its last moment is not skipped', async () => {
    const { summary } = await dead();
    clock.advance(71 * HOUR - SECOND - 1);
    expect(await putBack(summary)).toEqual({ outcome: 'replayed' });
  });

  test.each(['resolved', 'discarded'] as const)('of a letter that has been %s is skipped', async (status) => {
    const { job, summary } = await dead();
    const letter = await letterOf(by, job);
    await bucket.store.writeJson(deadLetterKey(job), { ...letter, status }, never);
    await expectNothing(job, putBack(summary), { outcome: 'skipped', why: 'not-open' });
  });

  test('of a letter that holds no MediaJob is skipped', async () => {
    await by.lane.add([{ id: 'x', data: { to: 'somebody' }, priority: 1 }]);
    await by.runNext();
    const summary = await by.index.get(invalidJobId('x'));
    if (summary === undefined) throw new Error('it did not die');
    expect(await putBack(summary)).toEqual({ outcome: 'skipped', why: 'not-a-job' });
    expect(await by.index.get(invalidJobId('x'))).toBeDefined();
  });

  test('of a letter that is not in the bucket is skipped', async () => {
    const { job, summary } = await dead();
    const elsewhere = { ...summary, key: `${summary.key}.bak` };
    await expectNothing(job, putBack(elsewhere), { outcome: 'skipped', why: 'missing' });
  });

  test('of a letter that somebody has written something else over is skipped', async () => {
    const { job, summary } = await dead();
    await bucket.store.writeJson(deadLetterKey(job), { v: 2 }, never);
    expect(await putBack(summary)).toEqual({ outcome: 'skipped', why: 'missing' });
  });

  const verdict = { reason: 'media-too-large', diedAt: iso(Date.now()) };
  test.each([
    { what: 'is being buried', ledger: { attempts: [], verdict } },
    { what: 'is being buried again', ledger: { attempts: [], verdict, replayed: true } },
    { what: 'somebody has added by other ways', ledger: { attempts: [] } },
  ])('of a media with a job that $what is skipped', async ({ ledger }) => {
    const { job, summary } = await dead();
    await by.lane.add([{ id: mediaJobId(job), data: { ...job, ledger }, priority: 1 }]);
    await expectNothing(job, putBack(summary), { outcome: 'skipped', why: 'settling' });
  });

  test('is not needed for a media that a job added by other ways has archived: its letter is resolved', async () => {
    const { job } = await dead();
    await by.lane.add([{ id: mediaJobId(job), data: job, priority: 1 }]);
    const well = testWorker({ corner, store: bucket.store, clock });
    await well.runNext();
    const places = { archivedAt: expect.any(String), inLane: undefined, listed: undefined, letter: 'resolved' };
    expect(await whereabouts(by, job)).toEqual(places);
  });

  test('fails when the bucket does not answer, and nothing is done', async () => {
    const { job, summary } = await dead();
    const down = testWorker({
      corner,
      clock,
      store: { ...bucket.store, writeJson: async () => ({ ok: false, failure: failure('store-unreachable') }) },
    });
    const { deadLetters, lanes } = down;
    const parts = { redis: corner.redis, keys: corner.keys, lanes, deadLetters, mediaTtlMs: 72 * HOUR, now: clock.now };
    const options = { note: { by: 'op', reason: 'r' }, includeExpired: false, dryRun: false };
    const failed: Replayed = { outcome: 'failed', failure: failure('store-unreachable') };
    await expectNothing(job, replay(parts, summary, options, never), failed);
  });
});
