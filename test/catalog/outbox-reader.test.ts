import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { deadLetterRowOf } from '../../src/catalog/dead-letter-table.ts';
import { createOutbox, mediaEntryOf, type OutboxFields } from '../../src/catalog/outbox.ts';
import { createOutboxReader, NewerRowsError } from '../../src/catalog/outbox-reader.ts';
import type { DeadLetter } from '../../src/dead-letter/dead-letter.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { createArchivedMarkers } from '../../src/queue/archived-marker.ts';
import type { RedisClient } from '../../src/redis/connect.ts';
import { deadLetterKey, mediaKeyStem } from '../../src/store/object-keys.ts';
import { DAY, HOUR } from '../../src/time.ts';
import { mediaOf } from '../bench/catalog/rows.ts';
import { sorted } from '../support/catalog.ts';
import { type CatalogBench, openCatalogBench } from '../support/catalog-bench.ts';
import { testJob } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const never = new AbortController().signal;
const SAMPLE = { rows: 400, apps: 1, days: 1, since: Math.floor(Date.now() / DAY) * DAY - 10 * DAY };

let corner: TestRedis;
let bench: CatalogBench;

beforeAll(async () => {
  corner = await openTestRedis();
});

afterAll(() => corner[Symbol.asyncDispose]());

beforeEach(async () => {
  bench = await openCatalogBench(corner);
});

afterEach(() => bench[Symbol.asyncDispose]());

function row(index: number): ReturnType<typeof mediaOf>['row'] {
  return mediaOf(index, SAMPLE).row;
}

async function add(id: string, fields: OutboxFields): Promise<void> {
  await bench.redis.xadd(bench.keys.outbox, id, ...fields);
}

/** A connection on which the answer to the first XREADGROUP that gave something out was lost, and the command sent again. */
function losingAnAnswer(redis: RedisClient): RedisClient {
  let isLost = false;
  return new Proxy(redis, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      if (name !== 'xreadgroup') return value.bind(target);
      return async (...args: unknown[]) => {
        const answer: unknown = await value.apply(target, args);
        if (isLost || answer === null) return answer;
        isLost = true;
        return value.apply(target, args);
      };
    },
  });
}

function letterOf(status: DeadLetter['status'], job = testJob()): DeadLetter {
  const { appId, mediaId, receivedAt } = job;
  return {
    v: 1,
    appId,
    mediaId,
    job,
    reason: 'invalid-media-id',
    firstAttemptAt: receivedAt,
    diedAt: receivedAt,
    deadline: receivedAt,
    attempts: [],
    status,
    replays: [],
  };
}

describe('a batch', () => {
  test('that was taken and not done is given out again whole and in order, whoever had it', async () => {
    for (let index = 0; index < 250; index += 1) await add('*', mediaEntryOf(row(index), false));
    const first = await createOutboxReader(bench.redis, bench.keys, 'one').take(150);
    expect(first.isRepeated).toBe(false);
    expect(first.ids).toHaveLength(200);
    const other = createOutboxReader(bench.redis, bench.keys, 'two');
    const again = await other.take(10);
    expect(again).toMatchObject({ ids: first.ids, isRepeated: true });
    await other.done(again);
    const next = await other.take(1_000);
    expect(next.isRepeated).toBe(false);
    const keys = (await Array.fromAsync(next.entries)).flatMap(({ rows }) => rows.map((one) => one['key']));
    expect(keys).toEqual(Array.from({ length: 50 }, (_, index) => row(200 + index).key));
  });

  test('holds what an answer of Redis that was lost gave out: a letter does not go back to an older state', async () => {
    const job = testJob();
    const outbox = createOutbox(bench.redis, bench.keys, Date.now);
    await outbox.deadLetter(deadLetterRowOf(deadLetterKey(job), letterOf('open', job)));
    for (let index = 0; index < 150; index += 1) await add('*', mediaEntryOf(row(index), false));
    await outbox.deadLetter(deadLetterRowOf(deadLetterKey(job), letterOf('resolved', job)));
    await bench.process({ redis: losingAnAnswer(bench.redis) }).flushAll(never);
    expect(await bench.rows('dead-letters')).toMatchObject([{ status: 'resolved' }]);
    expect(await bench.rows('media')).toHaveLength(150);
    expect(await bench.redis.xlen(bench.keys.outbox)).toBe(0);
  });

  test('has few rows more than were asked for, however many an entry holds', async () => {
    const outbox = createOutbox(bench.redis, bench.keys, Date.now);
    const jobs = Array.from({ length: 20 }, () => testJob());
    for (let left = 150; left > 0; left -= 1) await outbox.accepted(jobs);
    const { ids } = await createOutboxReader(bench.redis, bench.keys, 'one').take(50);
    expect(ids).toHaveLength(100);
  });
});

describe('a Redis that was set back', () => {
  test('gives out once more what is in the bucket: no row comes twice, and what is new comes too', async () => {
    const entries = Array.from({ length: 12 }, (_, index) => ({
      id: `${1_000 + index}-0`,
      fields: mediaEntryOf(row(index), false),
    }));
    for (const { id, fields } of entries) await add(id, fields);
    await bench.process().flushAll(never);
    // Everything is gone; then some of what had been there is there again, cut otherwise, and something else follows.
    await bench.redis.del(bench.keys.outbox);
    for (const { id, fields } of entries.slice(3, 9)) await add(id, fields);
    for (const index of [20, 21]) await add(`${2_000 + index}-0`, mediaEntryOf(row(index), false));
    await bench.process().flushAll(never);
    const expected = [...Array.from({ length: 12 }, (_, index) => row(index)), row(20), row(21)];
    expect(sorted(await bench.rows('media'))).toEqual(sorted(expected));
  });

  test('may give out ids anew for other rows: those that had them before stay', async () => {
    await add('1000-0', mediaEntryOf(row(1), false));
    await bench.process().flushAll(never);
    await bench.redis.del(bench.keys.outbox);
    await add('1000-0', mediaEntryOf(row(2), false));
    await bench.process().flushAll(never);
    expect(sorted(await bench.rows('media'))).toEqual(sorted([row(1), row(2)]));
  });

  test('tells an old state of a letter: the row is made of the letter as it is', async () => {
    const job = testJob();
    const key = deadLetterKey(job);
    await bench.files.putBytes(key, Buffer.from(JSON.stringify(letterOf('resolved', job))), 'application/json', never);
    const outbox = createOutbox(bench.redis, bench.keys, Date.now);
    await outbox.deadLetter(deadLetterRowOf(key, letterOf('open', job)));
    // Taken, and not done.
    await createOutboxReader(bench.redis, bench.keys, 'dead').take(10);
    await bench.process().flushAll(never);
    expect(await bench.rows('dead-letters')).toEqual([deadLetterRowOf(key, letterOf('resolved', job))]);
  });
});

test('rows of a media that may be there are looked for among all files of the day', async () => {
  for (let index = 0; index < 20; index += 1) await add('*', mediaEntryOf(row(index), false));
  await bench.process().flushAll(never);
  for (let index = 10; index < 30; index += 1) await add('*', mediaEntryOf(row(index), true));
  await bench.process().flushAll(never);
  const rows = await bench.rows('media');
  expect(sorted(rows)).toEqual(sorted(Array.from({ length: 30 }, (_, index) => row(index))));
});

test('a flush ends though rows keep coming: those wait until there are enough of them', async () => {
  let index = 0;
  const redis = new Proxy(bench.redis, {
    get: (target, name) => {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      if (name !== 'xreadgroup') return value.bind(target);
      return async (...args: unknown[]) => {
        if (index < 20) await add('*', mediaEntryOf(row(index), false));
        index += 1;
        return value.apply(target, args);
      };
    },
  });
  const turn = bench.process({ redis });
  for (let times = 1; times <= 3; times += 1) {
    await turn.flushAll(never);
    expect(bench.events.filter(({ type }) => type === 'flushed')).toHaveLength(times);
  }
  expect(await bench.rows('media')).toHaveLength(3);
});

test('what nobody can read is told and left out; what a newer version wrote waits', async () => {
  await add('*', mediaEntryOf(row(1), false));
  await add('*', ['t', 'nonsense/1', 'r', '[]']);
  await add('*', ['t', 'media/1', 'r', '[[1,2]]']);
  await add('*', ['t', 'media/1', 'r', '{broken']);
  await bench.process().flushAll(never);
  expect(await bench.rows('media')).toEqual([row(1)]);
  const unreadable = bench.events.flatMap((event) => (event.type === 'unreadable' ? event.ids : []));
  expect(unreadable).toHaveLength(3);
  expect(await bench.redis.xlen(bench.keys.outbox)).toBe(0);

  await add('*', mediaEntryOf(row(2), false));
  await add('*', ['t', 'media/99', 'r', '[]']);
  await expect(bench.process().flushAll(never)).rejects.toThrow(NewerRowsError);
  expect(await bench.redis.xlen(bench.keys.outbox)).toBe(2);
});

test('something else at the key of the outbox stops no media: they are accepted, archived and buried', async () => {
  const { redis, keys } = bench;
  await redis.set(keys.outbox, 'something else');
  const job = testJob();
  const outbox = createOutbox(redis, keys, Date.now);
  await outbox.accepted([job]);
  await outbox.deadLetter(deadLetterRowOf(deadLetterKey(job), letterOf('open', job)));
  const markers = createArchivedMarkers(redis, keys, Date.now);
  const key = `${mediaKeyStem(job)}.jpg`;
  await markers.mark(mediaJobId(job), { key }, Date.now() + HOUR, mediaEntryOf(row(1), false));
  expect(await markers.find([mediaJobId(job)])).toEqual([key]);
  await expect(bench.process().flushAll(never)).rejects.toThrow(/WRONGTYPE/);
});
