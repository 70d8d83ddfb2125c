import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { laneOf } from '../../src/queue/lane.ts';
import { iso } from '../../src/time.ts';
import { catalogRows } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID } from '../support/jobs.ts';
import { jobOf, openStack, type Stack, untilIdle } from '../support/stack.ts';

const DAY_MS = 86_400_000;
const BUSY = { CATALOG_FLUSH_ROWS: '7', CATALOG_FLUSH_SECONDS: '0.05', WORKER_LOCK_SECONDS: '1' };

async function flushed(stack: Stack): Promise<void> {
  const catalog = stack.catalog(BUSY);
  await eventually(async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined));
  await catalog.stop();
}

function sums(rows: readonly Record<string, unknown>[]): Record<string, number> {
  const names = ['accepted', 'archived', 'dead', 'discarded', 'open', 'missing', 'unknown', 'unrecorded'];
  const counted = rows.filter((row) => row['app'] !== undefined);
  return Object.fromEntries(names.map((name) => [name, counted.reduce((sum, row) => sum + Number(row[name]), 0)]));
}

test('tells what a Redis that was lost has taken away, by its ids, and it can be handed in again', async () => {
  await using stack = await openStack({ ownRedis: true });
  const worker = stack.worker();
  const saved = stack.addMedia(5);
  const gone = stack.addMedia(2, { ageMs: 4 * DAY_MS });
  await stack.queue.door.admit([...saved, ...gone].map(jobOf));
  // The same again is no more.
  await stack.queue.door.admit(saved.map(jobOf));
  await untilIdle(stack);
  await worker.stop();

  // Not flushed yet: what waits in the outbox counts.
  const before = await stack.command(['gaps', '--json']);
  expect(before.code).toBe(0);
  expect(sums(before.rows())).toEqual({
    accepted: 7,
    archived: 5,
    dead: 2,
    discarded: 0,
    open: 0,
    missing: 0,
    unknown: 0,
    unrecorded: 0,
  });

  const late = stack.addMedia(3);
  const expired = stack.addMedia(1, { ageMs: 3.5 * DAY_MS });
  await stack.queue.door.admit([...late, ...expired].map(jobOf));
  await flushed(stack);
  const open = await stack.command(['gaps', '--json']);
  expect(open.code).toBe(0);
  expect(sums(open.rows())).toMatchObject({ accepted: 11, archived: 5, dead: 2, open: 4, missing: 0 });

  await stack.redis.flushall();
  const lost = await stack.command(['gaps', '--json']);
  expect(lost.code).toBe(1);
  expect(sums(lost.rows())).toMatchObject({ accepted: 11, archived: 5, dead: 2, open: 0, missing: 4 });
  const named = lost.rows().flatMap((row) => (row['missing'] as { mediaId?: string } | undefined)?.mediaId ?? []);
  expect(named.toSorted()).toEqual([...late, ...expired].map(({ mediaId }) => mediaId).toSorted());
  const text = await stack.command(['gaps']);
  expect(text.stdout).toContain(`missing ${APP_ID} ${expired[0]?.mediaId} received`);
  expect(text.stdout).toMatch(/^dt +app +accepted +archived +dead +discarded +open +missing +unrecorded$/m);

  const jobs = await stack.command(['gaps', '--jobs']);
  const path = join(stack.folder, 'jobs.ndjson');
  await writeFile(path, jobs.stdout);
  expect((await stack.command(['enqueue', '--file', path, '--json'])).rows().at(-1)).toMatchObject({ accepted: 3 });
  const again = stack.worker();
  await untilIdle(stack);
  await again.stop();
  await flushed(stack);
  const after = await stack.command(['gaps', '--json']);
  expect(sums(after.rows())).toMatchObject({ accepted: 11, archived: 8, dead: 2, open: 0, missing: 1 });
  expect(await catalogRows(stack, 'media')).toHaveLength(8);
}, 120_000);

test('without Redis says that it can not tell open from missing', async () => {
  await using stack = await openStack({ ownRedis: true });
  await stack.queue.door.admit(stack.addMedia(2).map(jobOf));
  await flushed(stack);
  const env = { REDIS_URL: 'redis://127.0.0.1:1' };
  const away = await stack.command(['gaps', '--json'], { env });
  expect(away.code).toBe(1);
  expect(away.stderr).toContain("What is open can't be told from what is missing");
  expect(sums(away.rows())).toMatchObject({ accepted: 2, open: 0, missing: 0, unknown: 2 });
  expect(away.rows().filter((row) => row['unknown'] instanceof Object)).toHaveLength(2);
  expect((await stack.command(['gaps'], { env })).stdout).toMatch(
    /^dt +app +accepted +archived +dead +discarded +unknown/m,
  );
  // Whoever hands in what may be open must be able to ask.
  expect(await stack.command(['gaps', '--jobs'], { env })).toMatchObject({ code: 1, stdout: '' });
}, 60_000);

test('what Redis has lost before its row was written is found in the bucket', async () => {
  await using stack = await openStack({ ownRedis: true });
  const saved = stack.addMedia(3);
  const gone = stack.addMedia(2, { ageMs: 4 * DAY_MS });
  await stack.queue.door.admit([...saved, ...gone].map(jobOf));
  await flushed(stack);
  const worker = stack.worker();
  await untilIdle(stack);
  await worker.stop();
  await stack.redis.flushall();
  expect(await catalogRows(stack, 'media')).toEqual([]);
  const lost = await stack.command(['gaps', '--json']);
  expect(lost.stderr).toContain('5 are in the bucket and have no row yet');
  expect(sums(lost.rows())).toMatchObject({ accepted: 5, archived: 3, dead: 2, open: 0, missing: 0 });
  expect(lost.code).toBe(0);
}, 60_000);

test('each way to be open is open: waiting, delayed, active, at a closed gate, replayed', async () => {
  await using stack = await openStack({ ownRedis: true });
  const { simulator, queue } = stack;
  const gone = stack.addMedia(3, { ageMs: 4 * DAY_MS });
  const worker = stack.worker();
  await queue.door.admit(gone.map(jobOf));
  await untilIdle(stack);
  const [failing = '', held = '', gated = ''] = stack.addMedia(3).map(({ mediaId }) => mediaId);
  simulator.arm({ endpoint: 'media', mediaId: failing, action: { type: 'errcode', errcode: -1 } });
  simulator.arm({ endpoint: 'media', mediaId: held, action: { type: 'hang', where: 'headers' } });
  // The quota of the app is used up: its gate is closed.
  simulator.arm({ endpoint: 'media', mediaId: gated, action: { type: 'errcode', errcode: 45009 } });
  for (const mediaId of [failing, held, gated]) {
    await queue.door.admit([{ v: 1, appId: APP_ID, mediaId, receivedAt: iso(Date.now()) }]);
    await eventually(() => simulator.counts.media.get(mediaId));
  }
  await eventually(async () => (await queue.gates.list()).length === 1 || undefined);
  worker.process.kill('SIGKILL');
  await worker.exited;
  await stack.command(['dead-letters', 'replay', '--all', '--limit', '1', '--include-expired']);
  await stack.command(['dead-letters', 'discard', '--all', '--limit', '1']);
  await queue.door.admit(stack.addMedia(1).map(jobOf));
  const expected = { accepted: 7, archived: 0, dead: 1, discarded: 1, open: 5, missing: 0 };
  const fresh = await stack.command(['gaps', '--json']);
  expect(sums(fresh.rows())).toMatchObject(expected);
  expect(fresh.code).toBe(0);
  await flushed(stack);
  expect(sums((await stack.command(['gaps', '--json'])).rows())).toMatchObject(expected);
  await stack.redis.flushall();
  expect(sums((await stack.command(['gaps', '--json'])).rows())).toMatchObject({ ...expected, open: 0, missing: 5 });
}, 120_000);

test('what Redis refused, and left half-way, is missing', async () => {
  await using stack = await openStack({ ownRedis: true });
  const { queue, redis } = stack;
  const [half] = stack.addMedia(1).map(jobOf);
  if (half === undefined) throw new Error('there is no media');
  const lane = queue.lanes.lane(laneOf(APP_ID));
  // Something else at the key that a later step of the add writes.
  const prioritized = lane.keyOfJob('prioritized');
  await redis.set(prioritized, 'none of ours');
  await expect(queue.door.admit([half])).rejects.toThrow();
  await redis.del(prioritized);
  expect(await redis.exists(lane.keyOfJob(`${APP_ID}-${half.mediaId}`))).toBe(1);
  const { code, rows } = await stack.command(['gaps', '--json']);
  expect(code).toBe(1);
  expect(sums(rows())).toMatchObject({ accepted: 1, open: 0, missing: 1 });
  expect(rows()[0]).toMatchObject({ missing: { appId: APP_ID, mediaId: half.mediaId, expired: false } });
  // What `gaps` gives is taken.
  const jobs = await stack.command(['gaps', '--jobs']);
  await stack.command(['enqueue', '--file', '-'], { input: jobs.stdout });
  expect(sums((await stack.command(['gaps', '--json'])).rows())).toMatchObject({ accepted: 1, open: 1, missing: 0 });
}, 60_000);

test('what was lost and handed in again as of another day is archived', async () => {
  await using stack = await openStack({ ownRedis: true });
  const [media] = stack.addMedia(1);
  if (media === undefined) throw new Error('there is no media');
  const job = jobOf(media);
  await stack.queue.door.admit([{ ...job, receivedAt: iso(Date.parse(job.receivedAt) - DAY_MS) }]);
  await flushed(stack);
  await stack.redis.flushall();
  const worker = stack.worker();
  await stack.queue.door.admit([job]);
  await untilIdle(stack);
  await worker.stop();
  await flushed(stack);
  // As days later, when Redis has forgotten it.
  await stack.redis.flushall();
  const { code, rows } = await stack.command(['gaps', '--json']);
  expect(sums(rows())).toMatchObject({ accepted: 2, archived: 2, open: 0, missing: 0 });
  expect(code).toBe(0);
}, 60_000);
