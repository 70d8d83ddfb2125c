import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { AttemptRecord } from '../../src/archive/attempt-record.ts';
import { type DeadLetter, deadLetterSchema, summaryOf } from '../../src/dead-letter/dead-letter.ts';
import { createDeadLetterIndex, type DeadLetterIndex } from '../../src/dead-letter/dead-letter-index.ts';
import { createDeadLetters, type DeadLetters } from '../../src/dead-letter/dead-letters.ts';
import { fail } from '../../src/failure.ts';
import { type MediaJob, mediaJobId } from '../../src/media/media-job.ts';
import type { ArchiveStore } from '../../src/store/archive-store.ts';
import { deadLetterKey } from '../../src/store/object-keys.ts';
import { iso, MINUTE } from '../../src/time.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { testJob } from '../support/jobs.ts';
import { openTestStore, type TestStore } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const never = new AbortController().signal;
const BY = { by: 'operator', reason: 'a reason' };

let bucket: TestStore;
let corner: TestRedis;
let clock: TestClock;
let index: DeadLetterIndex;
let deadLetters: DeadLetters;
let job: MediaJob;
let id: string;
let key: string;

beforeAll(async () => {
  bucket = await openTestStore();
});

afterAll(() => bucket[Symbol.asyncDispose]());

beforeEach(async () => {
  corner = await openTestRedis();
  clock = testClock();
  index = createDeadLetterIndex(corner.redis, corner.keys, clock.now);
  deadLetters = createDeadLetters(bucket.store, index, async () => undefined, clock.now);
  job = testJob();
  id = mediaJobId(job);
  key = deadLetterKey(job);
});

afterEach(() => corner[Symbol.asyncDispose]());

function attempt(at: number): AttemptRecord {
  return { at: iso(at), durationMs: 5, failure: 'invalid-media-id', errcode: 40007 };
}

/** The letter of a life that began now and had so many attempts, a minute apart. */
function letterOf(attempts: number, fields: Partial<DeadLetter> = {}): DeadLetter {
  const records = Array.from({ length: attempts }, (_, n) => attempt(clock.now() + n * MINUTE));
  const { appId, mediaId } = job;
  return {
    v: 1,
    appId,
    mediaId,
    job,
    reason: 'invalid-media-id',
    errcode: 40007,
    firstAttemptAt: records[0]?.at ?? null,
    diedAt: iso(clock.now() + attempts * MINUTE),
    deadline: null,
    attempts: records,
    status: 'open',
    replays: [],
    ...fields,
  };
}

/** What lies in the bucket, as anybody would read it. */
async function document(): Promise<DeadLetter> {
  const read = await bucket.store.readJson(key, never);
  if (!read.ok || read.value === undefined) throw new Error('there is none');
  return deadLetterSchema.parse(read.value);
}

async function lettersInBucket(): Promise<string[]> {
  const listed = await Array.fromAsync(bucket.store.list('dead-letters/', never));
  return listed.map((object) => object.key).filter((name) => name.includes(job.mediaId));
}

/** The same, where one step of the store or of the index does not go through. */
function broken({
  store = {},
  list = {},
}: {
  store?: Partial<ArchiveStore>;
  list?: Partial<DeadLetterIndex>;
}): DeadLetters {
  return createDeadLetters({ ...bucket.store, ...store }, { ...index, ...list }, async () => undefined, clock.now);
}

const crash = (): Promise<never> => Promise.reject(new Error('the worker died'));
const refused: Partial<ArchiveStore> = { writeJson: async () => fail('store-denied') };
const unreadable: Partial<ArchiveStore> = { readJson: async () => fail('store-unreachable') };

describe('a media that is given up', () => {
  test('lies in the bucket, whole, and is listed', async () => {
    const letter = letterOf(3);
    expect(await deadLetters.bury(id, key, letter, never)).toBeUndefined();
    expect(await document()).toEqual(letter);
    expect(await deadLetters.read(key, never)).toEqual({ ok: true, value: letter });
    expect(await index.get(id)).toEqual(summaryOf(id, key, letter));
  });

  test.each([
    ['the bucket refuses it', refused, 'store-denied'],
    ['the bucket does not say what lies there already', unreadable, 'store-unreachable'],
  ])('is not listed while %s', async (_when, store, code) => {
    expect(await broken({ store }).bury(id, key, letterOf(1), never)).toMatchObject({ code });
    expect(await lettersInBucket()).toEqual([]);
    expect(await index.count()).toBe(0);
  });

  test('is one letter after a crash between bucket and list, the same as without', async () => {
    const letter = letterOf(3);
    await expect(broken({ list: { add: crash } }).bury(id, key, letter, never)).rejects.toThrow('the worker died');
    expect(await document()).toEqual(letter);
    expect(await index.count()).toBe(0);

    await deadLetters.bury(id, key, letter, never);
    await deadLetters.bury(id, key, letter, never);
    expect(await document()).toEqual(letter);
    expect(await lettersInBucket()).toEqual([key]);
    expect(await Array.fromAsync(index.list({}))).toEqual([summaryOf(id, key, letter)]);
  });

  test('without one attempt is a letter too', async () => {
    const letter = letterOf(0, { reason: 'job-invalid' });
    await deadLetters.bury(id, key, letter, never);
    expect(await document()).toEqual(letter);
  });

  test.each([
    ['another document', '{"hello":"world"}'],
    ['a letter of another version', '{"v":2}'],
    ['a list', '[]'],
    ['nothing at all', 'null'],
    ['half a document', '{"v":1,"appId":'],
    ['a blank', ' '],
    ['what is no JSON', 'gone fishing'],
  ])('is buried where somebody has left %s', async (_what, text) => {
    const bytes = Buffer.from(text);
    await putRaw(bytes);
    expect(await deadLetters.read(key, never)).toEqual({ ok: true, value: undefined });
    expect(await deadLetters.bury(id, key, letterOf(1), never)).toBeUndefined();
    expect(await document()).toEqual(letterOf(1));
    expect(await index.count()).toBe(1);
  });

  async function putRaw(bytes: Buffer): Promise<void> {
    const response = await fetch(`${bucket.s3.endpoint}/${bucket.s3.bucket}/${key}`, {
      method: 'PUT',
      body: new Uint8Array(bytes),
    });
    expect(response.status).toBe(200);
  }
});

describe('a media that dies again after a replay', () => {
  async function replayedOnce(): Promise<DeadLetter> {
    const first = letterOf(2);
    await deadLetters.bury(id, key, first, never);
    clock.advance(60 * MINUTE);
    const marked = await deadLetters.markReplayed(key, first, BY, never);
    if (!marked.ok) throw new Error('it could not be marked');
    await index.remove(id);
    return marked.value;
  }

  test('is one letter with the history of both lives and its replays', async () => {
    const replayed = await replayedOnce();
    const second = letterOf(3, { reason: 'media-expired' });
    await deadLetters.bury(id, key, second, never);
    const story: DeadLetter = {
      ...second,
      attempts: [...replayed.attempts, ...second.attempts],
      firstAttemptAt: replayed.firstAttemptAt,
      replays: [{ at: iso(clock.now()), by: 'operator', reason: 'a reason' }],
    };
    expect(await document()).toEqual(story);
    expect(await lettersInBucket()).toEqual([key]);

    // A crash makes the worker do it again.
    await deadLetters.bury(id, key, second, never);
    expect(await document()).toEqual(story);
  });

  test('is listed as the letter in the bucket says', async () => {
    await replayedOnce();
    await deadLetters.bury(id, key, letterOf(3), never);
    expect(await index.get(id)).toEqual(summaryOf(id, key, await document()));
  });

  test('keeps every attempt once, however many lives and repetitions', async () => {
    const lives = fc.array(
      fc.record({ attempts: fc.integer({ min: 0, max: 4 }), burials: fc.integer({ min: 1, max: 3 }) }),
      {
        minLength: 1,
        maxLength: 4,
      },
    );
    await fc.assert(
      fc.asyncProperty(lives, async (chosen) => {
        job = testJob();
        id = mediaJobId(job);
        key = deadLetterKey(job);
        const all: AttemptRecord[] = [];
        for (const [life, { attempts, burials }] of chosen.entries()) {
          const letter = letterOf(attempts);
          all.push(...letter.attempts);
          for (let n = 0; n < burials; n += 1) await deadLetters.bury(id, key, letter, never);
          const buried = await document();
          expect(buried.attempts).toEqual(all);
          expect(buried.replays).toHaveLength(life);
          expect(buried.status).toBe('open');
          clock.advance(60 * MINUTE);
          await deadLetters.markReplayed(key, buried, BY, never);
        }
      }),
      { numRuns: 20 },
    );
  });
});

test('what is missing of a history is counted once, however often the letter is written', async () => {
  await deadLetters.bury(id, key, letterOf(2, { attemptsOmitted: 10 }), never);
  clock.advance(60 * MINUTE);
  const second = letterOf(1, { deadline: iso(clock.now() + 60 * MINUTE), attemptsOmitted: 5 });
  for (let n = 0; n < 3; n += 1) expect(await deadLetters.bury(id, key, second, never)).toBeUndefined();
  expect(await document()).toMatchObject({ attemptsOmitted: 15 });
});

describe('a media that dies again although it was discarded', () => {
  const discarded = { at: '', by: 'operator', reason: 'a reason' };

  async function discardedOnce(fields: Partial<DeadLetter>): Promise<DeadLetter> {
    const first = letterOf(2, fields);
    await deadLetters.bury(id, key, first, never);
    await deadLetters.discard(id, key, first, BY, never);
    discarded.at = iso(clock.now());
    clock.advance(60 * MINUTE);
    return first;
  }

  test('stays discarded, with both lives on record, and is not listed', async () => {
    const first = await discardedOnce({ deadline: iso(clock.now() + 60 * MINUTE) });
    const second = letterOf(1, { deadline: first.deadline });
    for (let n = 0; n < 2; n += 1) expect(await deadLetters.bury(id, key, second, never)).toBeUndefined();
    const attempts = [...first.attempts, ...second.attempts];
    expect(await document()).toEqual({
      ...second,
      status: 'discarded',
      discarded,
      attempts,
      firstAttemptAt: first.firstAttemptAt,
    });
    expect(await index.count()).toBe(0);
    expect(await corner.redis.exists(corner.keys.discarded(id))).toBe(1);
  });

  test('is open again where another payload that is no job has come under its id, and remembers the discard', async () => {
    await discardedOnce({ reason: 'job-invalid' });
    await deadLetters.bury(id, key, letterOf(0, { reason: 'job-invalid' }), never);
    expect(await document()).toMatchObject({ status: 'open', discarded });
    expect(await index.count()).toBe(1);
  });

  test('keeps who discarded it first and why', async () => {
    await discardedOnce({});
    await deadLetters.discard(id, key, await document(), { by: 'another', reason: 'again' }, never);
    expect(await document()).toMatchObject({ status: 'discarded', discarded });
  });
});

describe('the rest of the story', () => {
  let letter: DeadLetter;

  beforeEach(async () => {
    letter = letterOf(2);
    await deadLetters.bury(id, key, letter, never);
    clock.advance(MINUTE);
  });

  test('a replay is on record with who and why before the letter leaves the list', async () => {
    await deadLetters.markReplayed(key, letter, BY, never);
    const replays = [{ at: iso(clock.now()), by: 'operator', reason: 'a reason' }];
    expect(await document()).toEqual({ ...letter, status: 'replayed', replays });
    expect(await index.count()).toBe(1);
  });

  test('a replay that archived the media resolves the letter, which leaves the list', async () => {
    expect(await deadLetters.resolve(id, key, 'media/x.jpg', never)).toBeUndefined();
    expect(await document()).toEqual({ ...letter, status: 'resolved', archivedKey: 'media/x.jpg' });
    expect(await index.count()).toBe(0);
  });

  test('a media without a letter is resolved by doing nothing', async () => {
    const other = testJob();
    expect(await deadLetters.resolve(mediaJobId(other), deadLetterKey(other), 'x', never)).toBeUndefined();
    expect(await deadLetters.read(deadLetterKey(other), never)).toEqual({ ok: true, value: undefined });
    expect(await index.count()).toBe(1);
  });

  test('a discarded letter says who and why, and leaves the list', async () => {
    expect(await deadLetters.discard(id, key, letter, BY, never)).toBeUndefined();
    const discarded = { at: iso(clock.now()), by: 'operator', reason: 'a reason' };
    expect(await document()).toEqual({ ...letter, status: 'discarded', discarded });
    expect(await index.count()).toBe(0);
  });

  test.each<[string, (letters: DeadLetters) => Promise<unknown>, string]>([
    ['resolved', (letters) => letters.resolve(id, key, 'media/x.jpg', never), 'resolved'],
    ['discarded', (letters) => letters.discard(id, key, letter, BY, never), 'discarded'],
  ])(
    'a letter that could not be %s in the bucket stays listed; after a crash in between it is done again',
    async (_how, step, status) => {
      expect(await step(broken({ store: refused }))).toMatchObject({ code: 'store-denied' });
      expect(await document()).toEqual(letter);
      expect(await index.count()).toBe(1);

      await expect(step(broken({ list: { remove: crash, discard: crash } }))).rejects.toThrow('the worker died');
      expect(await document()).toMatchObject({ status });
      expect(await index.count()).toBe(1);

      expect(await step(deadLetters)).toBeUndefined();
      expect(await document()).toMatchObject({ status, attempts: letter.attempts });
      expect(await index.count()).toBe(0);
    },
  );

  test('a letter that cannot be read is neither resolved nor unlisted', async () => {
    expect(await broken({ store: unreadable }).resolve(id, key, 'x', never)).toMatchObject({
      code: 'store-unreachable',
    });
    expect(await index.count()).toBe(1);
  });
});

test('an operator who gives up waiting gets the reason', async () => {
  const reason = new Error('stop');
  await expect(deadLetters.read(key, AbortSignal.abort(reason))).rejects.toBe(reason);
  await expect(deadLetters.bury(id, key, letterOf(1), AbortSignal.abort(reason))).rejects.toBe(reason);
  expect(await index.count()).toBe(0);
});
