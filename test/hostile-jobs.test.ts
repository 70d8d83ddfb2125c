import fc from 'fast-check';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { createMediaProducer, InvalidMediaJobError, type MediaJob, type MediaProducer } from '../src/index.ts';
import { type Lanes, laneOf } from '../src/queue/lane.ts';
import { testClock } from './support/clock.ts';
import { APP_ID, OTHER_APP_ID, testJob } from './support/jobs.ts';
import { testDoor, testLanes } from './support/queue.ts';
import { openTestRedis, type TestRedis } from './support/redis.ts';

let parts: AsyncDisposableStack;
let corner: TestRedis;
let lanes: Lanes;
let producer: MediaProducer;

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  corner = parts.use(await openTestRedis());
  lanes = testLanes(corner);
  producer = createMediaProducer({ redisUrl: corner.url, prefix: corner.prefix, timeoutMs: 30_000 });
  parts.defer(() => producer.close());
});

afterEach(() => parts.disposeAsync());

const keysNow = (): Promise<string[]> => corner.redis.keys(`${corner.prefix.replace(/[{}]/g, '?')}*`);

async function sweep(): Promise<void> {
  const keys = await keysNow();
  if (keys.length > 0) await corner.redis.del(...keys);
}

/** Every alphabet, and what means something to Redis, BullMQ, S3, a shell, a URL or a reader. */
const texts = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 300 }),
  fc.string({ unit: 'grapheme', maxLength: 300 }),
  fc.string({ unit: fc.constantFrom(...'aZ09_-'), maxLength: 260 }),
  fc.string({
    unit: fc.constantFrom('a', '\u0000', '\n', '\r', ':', '/', '.', '{', '}', '*', '%', ' ', '\\', '\u202e'),
  }),
  fc.constantFrom('', '..', '../../x', 'a/b', 'a:b', 'a\n', '\na', 'a\u0000', '%2e%2e', '{x}', '*', '?', '[a]', '$(x)'),
  // Letters that look like ours, digits of others, and marks that are not seen.
  fc.constantFrom('аbс', 'ａｂｃ', '１２３', 'a\u200b', '\ufeffa', 'ı', 'ß', 'K', '👩‍👩‍👧', '\ud800', 'e\u0301', '٣'),
  fc.constantFrom(
    '__proto__',
    'constructor',
    'null',
    'undefined',
    'NaN',
    '-1',
    '0',
    '1e3',
    '--help',
    'x'.repeat(1_000_000),
  ),
);

/** Valid ones, and one time in fifteen any other. */
const mostly = (valid: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
  fc.oneof({ weight: 28, arbitrary: valid }, { weight: 1, arbitrary: texts }, { weight: 1, arbitrary: fc.jsonValue() });

const ours = fc.string({ unit: fc.constantFrom(...'aZ09_-'), minLength: 1, maxLength: 20 });

const jobs = fc.record(
  {
    v: fc.constant(1),
    appId: mostly(fc.constantFrom(APP_ID, OTHER_APP_ID)),
    mediaId: fc.oneof(
      texts,
      ours,
      fc.integer({ min: 250, max: 260 }).map((length) => 'a'.repeat(length)),
      mostly(fc.constantFrom('0', '-1', '--help', '__proto__', 'constructor', 'null')),
    ),
    kind: mostly(fc.constantFrom('image', 'voice')),
    receivedAt: mostly(
      fc.date({ min: new Date(0), max: new Date('2026-06-15'), noInvalidDate: true }).map((date) => date.toISOString()),
    ),
    source: mostly(
      fc.record(
        { messageId: fc.string({ unit: 'binary', minLength: 1, maxLength: 64 }), openId: fc.constant('oSENDER') },
        { requiredKeys: [] },
      ),
    ),
    labels: mostly(
      fc.dictionary(
        fc.oneof(ours, fc.constantFrom('__proto__', 'constructor', 'a.b')),
        fc.string({ unit: 'binary', maxLength: 128 }),
        { maxKeys: 3 },
      ),
    ),
  },
  { requiredKeys: ['v', 'appId', 'mediaId', 'receivedAt'] },
);

/** What lies in the lane, if it is all that lies anywhere. */
async function queued(job: MediaJob): Promise<unknown> {
  const id = `${job.appId}-${job.mediaId}`;
  const lane = lanes.lane(laneOf(job.appId));
  expect(await lane.counts()).toEqual({ waiting: 1, delayed: 0, active: 0, failed: 0 });
  const names = (await keysNow()).map((key) => key.slice(corner.prefix.length));
  for (const name of names) expect(name).toMatch(/^:[\w:.-]+$/);
  expect(
    names.filter((name) => name.includes('-wx') && !/:(meta|events|marker|prioritized|pc|id)$/.test(name)),
  ).toEqual(names.filter((name) => name.endsWith(`:${id}`)));
  return JSON.parse((await lane.peek(id))?.data ?? 'null');
}

/** A job as it is kept: whole, but for the openId. */
function withoutOpenId({ source, ...job }: MediaJob): unknown {
  if (source === undefined) return job;
  const { openId: _dropped, ...kept } = source;
  const nothing = source.openId !== undefined && Object.keys(kept).length === 0;
  return nothing ? job : { ...job, source: kept };
}

async function leavesNothing(): Promise<void> {
  expect(await keysNow()).toEqual([]);
}

test('a media of any alphabet is queued as it is, once, or refused with nothing left behind', async () => {
  const counts = { accepted: 0, refused: 0 };
  const property = fc.asyncProperty(jobs, async (input) => {
    await sweep();
    const job = input as unknown as MediaJob;
    const end = await producer.enqueue(job).catch((error: unknown) => error);
    if (end === 'accepted') {
      counts.accepted += 1;
      expect(job.appId).toMatch(/^wx[0-9a-f]{16}$/);
      expect(job.mediaId).toMatch(/^[A-Za-z0-9_-]{1,256}$/);
      expect(await queued(job)).toEqual(withoutOpenId(job));
      expect(await producer.enqueue(job)).toBe('duplicate');
      return;
    }
    counts.refused += 1;
    expect(end).toBeInstanceOf(InvalidMediaJobError);
    const { mistakes, message } = end as InvalidMediaJobError;
    expect(mistakes.length).toBeGreaterThan(0);
    expect(message.length).toBeLessThan(20 * 700);
    await leavesNothing();
  });
  await fc.assert(property, { numRuns: 1_000 });
  expect(counts.accepted).toBeGreaterThan(100);
  expect(counts.refused).toBeGreaterThan(100);
});

test('the door tells of each what became of it, and queues no other', async () => {
  const door = testDoor(corner, lanes, testClock(Date.now()));
  const property = fc.asyncProperty(fc.array(fc.oneof(jobs, fc.anything()), { maxLength: 10 }), async (inputs) => {
    await sweep();
    const { accepted, duplicates, rejected } = await door.admit([...inputs, testJob()]);
    expect(accepted + duplicates + rejected.length).toBe(inputs.length + 1);
    expect(accepted).toBeGreaterThan(0);
    for (const { index, mistakes } of rejected) {
      expect(index).toBeLessThan(inputs.length);
      expect(mistakes.length).toBeGreaterThan(0);
    }
    const ids = (await keysNow()).filter((key) => /-wx[0-9a-f]{16}:wx/.test(key));
    expect(ids).toHaveLength(accepted);
  });
  await fc.assert(property, { numRuns: 300 });
});
