import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { describeObject } from '../../src/archive/object-metadata.ts';
import type { CatalogEvent } from '../../src/catalog/catalog-turn.ts';
import { appsOf, closesAt, dayAfter, daysBetween, firstDay } from '../../src/catalog/days.ts';
import { deadLetterRowOf } from '../../src/catalog/dead-letter-table.ts';
import { inParallel } from '../../src/catalog/in-parallel.ts';
import { createOutbox, mediaEntryOf } from '../../src/catalog/outbox.ts';
import { rowFromObject } from '../../src/catalog/row-from-object.ts';
import type { AnyRow } from '../../src/catalog/table.ts';
import type { DeadLetter } from '../../src/dead-letter/dead-letter.ts';
import type { Logger } from '../../src/log.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { logCatalogEvent } from '../../src/operate/catalog-log.ts';
import { deadLetterKey, mediaKeyStem } from '../../src/store/object-keys.ts';
import { DAY, HOUR, iso } from '../../src/time.ts';
import { sorted } from '../support/catalog.ts';
import { type CatalogBench, openCatalogBench } from '../support/catalog-bench.ts';
import { OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';
import { wholeObject } from '../support/store.ts';

const never = new AbortController().signal;
const RECEIVED = iso(Math.floor(Date.now() / DAY) * DAY - 10 * DAY + HOUR);

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

/** Archives a media as a worker does, and returns the row that its object makes. */
async function archive(job: MediaJob, key = `${mediaKeyStem(job)}.jpg`): Promise<AnyRow> {
  const body = { declaredType: 'image/jpeg', sniffed: { mime: 'image/jpeg', extension: 'jpg' } };
  const attempt = { enqueuedAt: Date.now(), startedAt: Date.now(), attempt: 1, deadline: Date.now() + DAY };
  const whole = wholeObject(Buffer.from(job.mediaId), { key });
  const { metadata } = describeObject(job, body, attempt, iso(Date.now()), whole.digest.sha256);
  expect(await bench.store.write({ ...whole, metadata }, never)).toMatchObject({ ok: true });
  const row = await rowFromObject(bench.store, key, never);
  if (row === undefined) throw new Error(`${key} makes no row`);
  return row;
}

function letterOf(job: MediaJob): DeadLetter {
  return {
    v: 1,
    appId: job.appId,
    mediaId: job.mediaId,
    job,
    reason: 'invalid-media-id',
    firstAttemptAt: RECEIVED,
    diedAt: RECEIVED,
    deadline: RECEIVED,
    attempts: [],
    status: 'open',
    replays: [],
  };
}

describe('the closing of a day', () => {
  test('makes the rows that the outbox did not bring, and those alone', async () => {
    const labels = { ticket: 'T-1' };
    const jobs = [
      ...Array.from({ length: 8 }, () => testJob({ receivedAt: RECEIVED, labels })),
      testJob({ receivedAt: RECEIVED, appId: OTHER_APP_ID, kind: 'voice', variant: 'hd-voice' }),
    ];
    const rows: AnyRow[] = [];
    for (const job of jobs) rows.push(await archive(job));
    // Three of nine were told.
    for (const row of rows.slice(0, 3))
      await bench.redis.xadd(bench.keys.outbox, '*', ...mediaEntryOf(row as Parameters<typeof mediaEntryOf>[0], false));
    await bench.files.putBytes(
      `media/app=${OTHER_APP_ID}/kind=image/dt=${RECEIVED.slice(0, 10)}/foreign.jpg`,
      Buffer.from('x'),
      'image/jpeg',
      never,
    );
    const one = bench.process();
    await one.flushAll(never);
    await one.upkeep(never);
    expect(sorted(await bench.rows('media'))).toEqual(sorted(rows));
    const closed = bench.events.find((event) => event.type === 'closed' && event.dt === RECEIVED.slice(0, 10));
    expect(closed).toMatchObject({ objects: 10, added: 6, foreign: 1 });
    // Once more is harmless, also by somebody who has forgotten that it was closed.
    await bench.files.remove('catalog/state.json', never);
    await bench.process().upkeep(never);
    expect(sorted(await bench.rows('media'))).toEqual(sorted(rows));
  });

  test('tells of dead letters what the outbox did not bring', async () => {
    const job = testJob({ receivedAt: RECEIVED });
    const letter = letterOf(job);
    const key = deadLetterKey(job);
    await archive(testJob({ receivedAt: RECEIVED }));
    for (const status of ['open', 'resolved'] as const) {
      await bench.files.putBytes(key, Buffer.from(JSON.stringify({ ...letter, status })), 'application/json', never);
      await bench.files.remove('catalog/state.json', never);
      await bench.process().upkeep(never);
      expect(await bench.rows('dead-letters')).toEqual([deadLetterRowOf(key, { ...letter, status })]);
    }
    const changed = bench.events.flatMap((event) =>
      event.type === 'closed' && event.letters > 0 ? event.letters : [],
    );
    expect(changed).toEqual([1, 1]);
  });

  test('comes again for a day that gets a row after it', async () => {
    await archive(testJob({ receivedAt: RECEIVED }));
    await bench.process().upkeep(never);
    const late = await archive(testJob({ receivedAt: RECEIVED }));
    await bench.redis.xadd(bench.keys.outbox, '*', ...mediaEntryOf(late as Parameters<typeof mediaEntryOf>[0], false));
    const before = bench.events.length;
    const one = bench.process();
    await one.flushAll(never);
    await one.upkeep(never);
    const closed = bench.events.slice(before).filter((event) => event.type === 'closed');
    expect(closed).toMatchObject([{ dt: RECEIVED.slice(0, 10), objects: 2, added: 0 }]);
    expect(await bench.rows('media')).toHaveLength(2);
  });

  test('leaves a day whose file somebody has spoilt, names the file, and goes on with the others', async () => {
    const [dt, next] = [RECEIVED.slice(0, 10), dayAfter(RECEIVED.slice(0, 10))];
    const rows: AnyRow[] = [];
    const tell = async (row: AnyRow): Promise<void> => {
      rows.push(row);
      await bench.redis.xadd(bench.keys.outbox, '*', ...mediaEntryOf(row as Parameters<typeof mediaEntryOf>[0], false));
    };
    await tell(await archive(testJob({ receivedAt: RECEIVED })));
    await tell(await archive(testJob({ receivedAt: iso(Date.parse(RECEIVED) + DAY) })));
    const one = bench.process();
    await one.flushAll(never);
    const [key = ''] = await bench.keysBelow(`catalog/media/dt=${dt}/`);
    const whole = await bench.files.getBytes(key, 1024 * 1024, never);
    if (!whole.ok || whole.value === undefined) throw new Error(`${key} is gone`);
    await bench.files.putBytes(key, whole.value.subarray(0, 300), 'application/octet-stream', never);
    await one.upkeep(never);
    const eventsOf = (type: string): CatalogEvent[] => bench.events.filter((event) => event.type === type);
    expect(eventsOf('spoilt')).toEqual([{ type: 'spoilt', keys: [key] }]);
    const closed = (): string[] => bench.events.flatMap((event) => (event.type === 'closed' ? event.dt : []));
    expect(closed()).toContain(next);
    expect(closed()).not.toContain(dt);

    // What comes late is looked for among the files of its day, and comes in all the same.
    await tell(await archive(testJob({ receivedAt: RECEIVED })));
    await one.flushAll(never);
    expect(await bench.keysBelow(`catalog/media/dt=${dt}/`)).toHaveLength(2);
    await one.upkeep(never);
    expect(closed()).not.toContain(dt);

    await bench.files.remove(key, never);
    await one.upkeep(never);
    expect(closed()).toContain(dt);
    expect(sorted(await bench.rows('media'))).toEqual(sorted(rows));
  });

  test('makes the rows of letters anew where their file is spoilt, and no flush fails of it', async () => {
    const dt = RECEIVED.slice(0, 10);
    const job = testJob({ receivedAt: RECEIVED });
    const letter = letterOf(job);
    const key = deadLetterKey(job);
    await bench.files.putBytes(key, Buffer.from(JSON.stringify(letter)), 'application/json', never);
    await archive(job);
    const spoilt = `catalog/dead-letters/dt=${dt}/app=${job.appId}/letters.parquet`;
    await bench.files.putBytes(spoilt, Buffer.from('no Parquet'), 'application/octet-stream', never);
    await createOutbox(bench.redis, bench.keys, Date.now).deadLetter(deadLetterRowOf(key, letter));
    const one = bench.process();
    await one.flushAll(never);
    expect(bench.events).toContainEqual({ type: 'spoilt', keys: [spoilt] });
    await one.upkeep(never);
    expect(await bench.rows('dead-letters')).toEqual([deadLetterRowOf(key, letter)]);
  });
});

test('the log says which file is spoilt and what to do', () => {
  const lines: unknown[] = [];
  const error = (...line: unknown[]): void => void lines.push(line);
  const key = 'catalog/media/dt=2026-06-15/app=wxa/1.parquet';
  logCatalogEvent({ error } as unknown as Logger, { type: 'spoilt', keys: [key] });
  expect(lines).toEqual([
    [{ key }, expect.stringContaining('weixin-media catalog rebuild --since 2026-06-15 --until 2026-06-15')],
  ]);
});

describe('days', () => {
  test('follow each other over the ends of months and years', () => {
    expect(dayAfter('2028-02-28')).toBe('2028-02-29');
    expect([...daysBetween('2026-12-30', '2027-01-02')]).toEqual([
      '2026-12-30',
      '2026-12-31',
      '2027-01-01',
      '2027-01-02',
    ]);
    expect([...daysBetween('2026-06-16', '2026-06-15')]).toEqual([]);
  });

  test('close when nothing of them can be saved any more, and a while after', () => {
    expect(iso(closesAt('2026-06-15', 72 * HOUR, 6 * HOUR))).toBe('2026-06-19T06:00:00.000Z');
  });

  test('begin with the oldest of objects and rows, whichever app and kind has it', async () => {
    expect(await firstDay(bench.files, never)).toBeUndefined();
    const put = (key: string): Promise<unknown> => bench.files.putBytes(key, Buffer.from('x'), 'text/plain', never);
    await put('media/app=wxb/kind=image/dt=2026-06-17/a.jpg');
    await put('media/app=wxa/kind=voice/dt=2026-06-16/a.amr');
    await put('media/app=wxa/kind=image/dt=2026-06-18/a.jpg');
    expect(await firstDay(bench.files, never)).toBe('2026-06-16');
    await put('catalog/media/dt=2026-06-15/app=wxc/a.parquet');
    expect(await firstDay(bench.files, never)).toBe('2026-06-15');
    expect(await Array.fromAsync(appsOf(bench.files, never))).toEqual(['wxa', 'wxb']);
  });
});

describe('in parallel', () => {
  test('no more at a time than were asked for, and each once', async () => {
    let [now, most] = [0, 0];
    const done: number[] = [];
    await inParallel(
      3,
      Array.from({ length: 20 }, (_, index) => index),
      async (item) => {
        now += 1;
        most = Math.max(most, now);
        await new Promise(setImmediate);
        done.push(item);
        now -= 1;
      },
    );
    expect(most).toBe(3);
    expect(done.toSorted((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, index) => index));
  });

  test('the first failure is told once all that had begun have ended, and no more are begun', async () => {
    const begun: number[] = [];
    let ended = 0;
    const failing = inParallel(3, [0, 1, 2, 3, 4, 5], async (item) => {
      begun.push(item);
      try {
        if (item === 1) throw new Error('the second');
        await new Promise(setImmediate);
      } finally {
        ended += 1;
      }
    });
    await expect(failing).rejects.toThrow('the second');
    expect(ended).toBe(begun.length);
    expect(begun.length).toBeLessThan(6);
  });

  test('a failure of what is iterated is told too', async () => {
    async function* broken(): AsyncIterable<number> {
      yield 1;
      throw new Error('no more');
    }
    await expect(inParallel(2, broken(), async () => undefined)).rejects.toThrow('no more');
  });
});
