import { randomUUID } from 'node:crypto';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { failure } from '../../src/failure.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { INBOX_LANE, type Lane, laneOf, type Taken } from '../../src/queue/lane.ts';
import { iso, MINUTE } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { hostilePayloads } from '../support/hostile-payload.ts';
import { testJob } from '../support/jobs.ts';
import {
  type Attempt,
  failing,
  never,
  openTestStore,
  type TestStore,
  type TestWorker,
  testWorker,
} from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

// Shrinking takes time, and there are payloads of megabytes.
vi.setConfig({ testTimeout: 120_000 });

/** More often than this no job needs to be taken that is settled at once. */
const MAX_TAKES = 4;

let bucket: TestStore;
let corner: TestRedis;
let clock: TestClock;

beforeAll(async () => {
  bucket = await openTestStore();
});

afterAll(() => bucket[Symbol.asyncDispose]());

beforeEach(async () => {
  corner = await openTestRedis();
  // It stands still: what is put off is not due however long a test takes.
  clock = testClock(Date.now());
});

afterEach(() => corner[Symbol.asyncDispose]());

/** What one payload leaves behind must not be met by the next; that a lane is there, a process says once. */
async function sweep(): Promise<void> {
  const keys = await corner.redis.keys(`${corner.prefix.replace(/[{}]/g, '?')}*`);
  const forgotten = keys.filter((key) => key !== corner.keys.lanes);
  if (forgotten.length > 0) await corner.redis.del(...forgotten);
}

/**
 * Takes what is in a lane, and then in those of the apps that are known by then, until nothing is. What can be taken as the
 * one before it ends is.
 */
async function drain(by: TestWorker, first: Lane): Promise<void> {
  let takes = 0;
  await empty(first);
  for (const appId of await corner.redis.smembers(corner.keys.lanes)) await empty(by.lanes.lane(laneOf(appId)));

  async function empty(lane: Lane): Promise<void> {
    let taken: Taken = await lane.take(randomUUID());
    while (taken.job !== undefined) {
      takes += 1;
      if (takes > MAX_TAKES) throw new Error(`taken ${takes} times`);
      let next: Taken | undefined;
      const goOn = async (step: () => Promise<Taken>): Promise<void> => {
        next = await step();
      };
      await by.runJob(lane, taken.job, false, never, { goesOn: () => true, goOn, rest: () => undefined });
      taken = next?.job === undefined ? await lane.take(randomUUID()) : next;
    }
    expect(await lane.counts()).toMatchObject({ waiting: 0, active: 0, failed: 0 });
  }
}

const ends = ({ events }: TestWorker): string[] => events.map(({ type }) => type);

const EMPTY = { waiting: 0, delayed: 0, active: 0, failed: 0 };

test.each(['its lane', 'the inbox'])(
  'whatever lies in %s is archived or becomes one dead letter, and is gone',
  async (where) => {
    const by = testWorker({ corner, store: bucket.store, clock });
    const lane = where === 'the inbox' ? by.lanes.lane(INBOX_LANE) : by.lane;
    const seen = new Set<string>();
    const property = fc.asyncProperty(hostilePayloads, async (payload) => {
      await sweep();
      const id = randomUUID();
      by.events.length = 0;
      await lane.add([{ id, data: {}, priority: 1 }]);
      await corner.redis.hset(lane.keyOfJob(id), 'data', Buffer.from(payload, 'latin1'));
      await drain(by, lane);

      const [end, ...more] = ends(by);
      expect(more).toEqual([]);
      expect(['archived', 'dead', 'duplicate']).toContain(end);
      expect([await lane.counts(), await by.lane.counts()]).toEqual([EMPTY, EMPTY]);
      expect(await by.index.count()).toBe(end === 'dead' ? 1 : 0);
      if (end === 'dead') {
        const [summary] = await Array.fromAsync(by.index.list({}));
        const letter = await by.deadLetters.read(summary?.key ?? '', never);
        expect(letter).toMatchObject({ ok: true, value: { status: 'open', reason: summary?.reason } });
      }
      seen.add(end ?? '');
    });
    await fc.assert(property, { numRuns: 300 });
    expect([...seen]).toEqual(expect.arrayContaining(['archived', 'dead']));
  },
);

test('a history that somebody has made up neither stops a worker nor keeps the job alive', async () => {
  const by = testWorker({ corner, store: bucket.store, clock, attempt: failing(failure('media-too-large')) });
  const property = fc.asyncProperty(hostilePayloads, async (payload) => {
    await sweep();
    const id = randomUUID();
    by.events.length = 0;
    await by.lane.add([{ id, data: {}, priority: 1 }]);
    await corner.redis.hset(by.lane.keyOfJob(id), 'data', Buffer.from(payload, 'latin1'));
    await drain(by, by.lane);
    expect(ends(by)).toEqual(['dead']);
    expect(await by.lane.counts()).toEqual(EMPTY);
    expect(await by.index.count()).toBe(1);
  });
  await fc.assert(property, { numRuns: 200 });
});

describe('numbers that BullMQ has not written', () => {
  const numbers = fc.oneof(
    fc.constantFrom(
      '',
      'x',
      'NaN',
      '-1',
      '0',
      '1e9',
      '999999999',
      '9007199254740993',
      '9223372036854775806',
      '1.5',
      'null',
    ),
    fc.integer().map(String),
    fc.string({ unit: 'binary', maxLength: 20 }),
  );
  const fields = fc.dictionary(
    fc.constantFrom('ats', 'atm', 'stc', 'timestamp', 'priority', 'delay', 'name', 'processedOn', 'opts'),
    numbers,
    { minKeys: 1 },
  );

  type Forged = Readonly<Record<string, string>>;

  /** Queues jobs, overwrites the numbers of each, and runs them until they are gone or wait. */
  async function runAll(forgeries: readonly Forged[], attempt?: Attempt): Promise<TestWorker> {
    await sweep();
    const by = testWorker({ corner, store: bucket.store, clock, ...(attempt === undefined ? {} : { attempt }) });
    for (const forged of forgeries) {
      const job = testJob({ receivedAt: iso(clock.now() - MINUTE), mediaId: randomUUID() });
      await by.door.admit([job]);
      await corner.redis.hset(by.lane.keyOfJob(mediaJobId(job)), forged);
    }
    await drain(by, by.lane);
    return by;
  }

  const run = (forged: Forged, attempt?: Attempt): Promise<TestWorker> => runAll([forged], attempt);

  /** Those that say that it has killed its workers: it is spaced, as such a job is. */
  const looksDeadly = (by: TestWorker): boolean =>
    by.events.some((event) => event.type === 'retry' && event.failure.code === 'worker-lost');

  test('keep no job from being archived', async () => {
    const property = fc.asyncProperty(fields, async (forged) => {
      const by = await run(forged);
      if (looksDeadly(by)) expect(await by.lane.counts()).toEqual({ ...EMPTY, delayed: 1 });
      else {
        expect(ends(by)).toEqual(['archived']);
        expect(await by.lane.counts()).toEqual(EMPTY);
        expect(await jobKeys(by)).toEqual([]);
      }
    });
    await fc.assert(property, { numRuns: 200 });
  });

  test('keep no job from being archived that is taken as another ends, nor that other', async () => {
    const property = fc.asyncProperty(fc.array(fields, { minLength: 2, maxLength: 4 }), async (forgeries) => {
      const by = await runAll(forgeries);
      const spaced = by.events.filter((event) => event.type === 'retry' && event.failure.code === 'worker-lost').length;
      expect(ends(by).filter((type) => type === 'archived')).toHaveLength(forgeries.length - spaced);
      expect(ends(by)).toHaveLength(forgeries.length);
      expect(await by.lane.counts()).toEqual({ ...EMPTY, delayed: spaced });
      expect(await jobKeys(by)).toHaveLength(spaced);
    });
    await fc.assert(property, { numRuns: 200 });
  });

  test('keep no job from being tried again, with its attempt on record', async () => {
    const property = fc.asyncProperty(fields, async (forged) => {
      const by = await run(forged, failing(failure('weixin-busy')));
      expect(ends(by)).toEqual(['retry']);
      expect(await by.lane.counts()).toEqual({ ...EMPTY, delayed: 1 });
      expect((await jobKeys(by)).length).toBe(1);
    });
    await fc.assert(property, { numRuns: 200 });
  });

  test('keep no job from being a dead letter', async () => {
    const property = fc.asyncProperty(fields, async (forged) => {
      const by = await run(forged, failing(failure('media-too-large')));
      if (looksDeadly(by)) return;
      expect(ends(by)).toEqual(['dead']);
      expect(await by.lane.counts()).toEqual(EMPTY);
      expect(await by.index.count()).toBe(1);
      expect(await jobKeys(by)).toEqual([]);
    });
    await fc.assert(property, { numRuns: 200 });
  });

  /** What there is of jobs, in a lane or lost from it. */
  async function jobKeys(by: TestWorker): Promise<string[]> {
    return corner.redis.keys(`${by.lane.keyOfJob('wx').replace(/[{}]/g, '?')}*`);
  }
});
