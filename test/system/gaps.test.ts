import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
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
  const names = ['accepted', 'archived', 'dead', 'discarded', 'open', 'missing', 'unrecorded'];
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
  const away = await stack.command(['gaps', '--json'], { env: { REDIS_URL: 'redis://127.0.0.1:1' } });
  expect(away.code).toBe(1);
  expect(away.stderr).toContain('What is still open counts as missing');
  expect(sums(away.rows())).toMatchObject({ accepted: 2, missing: 2 });
}, 60_000);
