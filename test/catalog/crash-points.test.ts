import { afterAll, beforeAll, expect, test } from 'vitest';
import { deadLetterRowOf } from '../../src/catalog/dead-letter-table.ts';
import { createOutbox, mediaEntryOf } from '../../src/catalog/outbox.ts';
import type { AnyRow } from '../../src/catalog/table.ts';
import type { DeadLetter } from '../../src/dead-letter/dead-letter.ts';
import { deadLetterKey } from '../../src/store/object-keys.ts';
import { DAY } from '../../src/time.ts';
import { mediaOf } from '../bench/catalog/rows.ts';
import { sorted } from '../support/catalog.ts';
import { type CatalogBench, type CrashPoint, openCatalogBench, untilCrash } from '../support/catalog-bench.ts';
import { testJob } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const never = new AbortController().signal;
const SAMPLE = { rows: 24, apps: 2, days: 2, since: Math.floor(Date.now() / DAY) * DAY - 10 * DAY };
const MEDIA = Array.from({ length: SAMPLE.rows }, (_, index) => mediaOf(index, SAMPLE).row);
const LATER = [30, 31].map((index) => mediaOf(index, SAMPLE).row);
const FLUSHES = 3;
const WHENS = ['before', 'after'] as const;

let corner: TestRedis;

beforeAll(async () => {
  corner = await openTestRedis();
});

afterAll(() => corner[Symbol.asyncDispose]());

const deadJob = testJob({ receivedAt: new Date(SAMPLE.since).toISOString() });

function letter(status: DeadLetter['status']): DeadLetter {
  return {
    v: 1,
    appId: deadJob.appId,
    mediaId: deadJob.mediaId,
    job: deadJob,
    reason: 'invalid-media-id',
    firstAttemptAt: deadJob.receivedAt,
    diedAt: deadJob.receivedAt,
    deadline: new Date(SAMPLE.since + 3 * DAY).toISOString(),
    attempts: [],
    status,
    replays: [],
  };
}

/** Media in the outbox, with a letter that changes among them and what was accepted at the door. @param flushes how many. */
async function fill(bench: CatalogBench, flushes = 0): Promise<void> {
  const { redis, keys, files } = bench;
  const outbox = createOutbox(redis, keys, Date.now);
  for (const [index, row] of MEDIA.entries()) {
    if (index === 2) await outbox.deadLetter(deadLetterRowOf(deadLetterKey(deadJob), letter('open')));
    if (index === 15) await outbox.accepted([deadJob, testJob({ receivedAt: deadJob.receivedAt })]);
    if (index === 20) {
      const bytes = Buffer.from(JSON.stringify(letter('resolved')));
      await files.putBytes(deadLetterKey(deadJob), bytes, 'application/json', never);
      await outbox.deadLetter(deadLetterRowOf(deadLetterKey(deadJob), letter('resolved')));
    }
    await redis.xadd(keys.outbox, '*', ...mediaEntryOf(row, false));
    if ((index + 1) % Math.ceil(MEDIA.length / flushes) === 0) await bench.process().flushAll(never);
  }
}

async function expectEachRowOnce(bench: CatalogBench, media: readonly AnyRow[] = MEDIA): Promise<void> {
  expect(sorted(await bench.rows('media'))).toEqual(sorted(media));
  expect(await bench.rows('dead-letters')).toEqual([deadLetterRowOf(deadLetterKey(deadJob), letter('resolved'))]);
  const accepted = await bench.rows('accepted');
  expect(new Set(accepted.map((row) => row['media_id'])).size).toBe(2);
  expect(await bench.redis.xlen(bench.keys.outbox)).toBe(0);
  expect(await bench.keysBelow('catalog/compactions/')).toEqual([]);
}

/** Every point at which a run that ends by itself changes something, before and after the change. */
async function pointsOf(run: (bench: CatalogBench) => Promise<void>): Promise<CrashPoint[]> {
  await using bench = await openCatalogBench(corner);
  await run(bench);
  const points = Array.from({ length: bench.steps() }, (_, index) =>
    WHENS.map((when): CrashPoint => ({ step: index + 1, when })),
  ).flat();
  expect(points.length).toBeGreaterThan(8);
  return points;
}

test('a flush that ends at any point and is begun again gives each row once', async () => {
  const points = await pointsOf(async (bench) => {
    await fill(bench);
    await bench.process().flushAll(never);
    await expectEachRowOnce(bench);
  });
  for (const crash of points) {
    await using bench = await openCatalogBench(corner);
    await fill(bench);
    expect(await untilCrash(bench.process({ crash }).flushAll(never))).toBe(true);
    // What came meanwhile is no part of the batch that is repeated.
    for (const row of LATER) await bench.redis.xadd(bench.keys.outbox, '*', ...mediaEntryOf(row, false));
    await bench.process().flushAll(never);
    await expectEachRowOnce(bench, [...MEDIA, ...LATER]);
  }
}, 120_000);

test('a merge that ends at any point and is begun again gives each row once, in one file', async () => {
  const points = await pointsOf(async (bench) => {
    await fill(bench, FLUSHES);
    await bench.process().upkeep(never);
    await expectEachRowOnce(bench);
    // Two apps on two days.
    expect(bench.events.filter(({ type }) => type === 'compacted')).toHaveLength(4);
  });
  for (const crash of points) {
    await using bench = await openCatalogBench(corner);
    await fill(bench, FLUSHES);
    expect(await untilCrash(bench.process({ crash }).upkeep(never))).toBe(true);
    const next = bench.process();
    await next.flushAll(never);
    // Before anything is merged again.
    await expectEachRowOnce(bench);
    await next.upkeep(never);
    await expectEachRowOnce(bench);
    expect(await bench.keysBelow('catalog/media/')).toHaveLength(4);
    const closed = bench.events.filter((event) => event.type === 'closed');
    expect(closed.length).toBeGreaterThanOrEqual(2);
  }
}, 120_000);

test('a signal that aborts between two changes ends a flush and a merge, and nothing is lost', async () => {
  await using bench = await openCatalogBench(corner);
  await fill(bench);
  for (let turns = 0; turns < 12; turns += 1) {
    const abort = new AbortController();
    const timer = setTimeout(() => abort.abort(new Error('the lease is lost')), turns * 3);
    const one = bench.process();
    const turn = one.flushAll(abort.signal).then(() => one.upkeep(abort.signal));
    await turn.catch((error: unknown) => expect(String(error)).toContain('the lease is lost'));
    clearTimeout(timer);
  }
  const last = bench.process();
  await last.flushAll(never);
  await last.upkeep(never);
  await expectEachRowOnce(bench);
}, 60_000);
