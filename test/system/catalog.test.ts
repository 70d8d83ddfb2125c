import { expect, test } from 'vitest';
import { catalogRows, rowsOfObjects, sorted } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { jobOf, lettersOf, logLines, openStack, untilIdle } from '../support/stack.ts';

const DAY_MS = 86_400_000;
/** Flushes all the time. */
const BUSY = { CATALOG_FLUSH_ROWS: '7', CATALOG_FLUSH_SECONDS: '0.05', WORKER_LOCK_SECONDS: '1' };

test('each media and each dead letter has one row, whoever is killed when', async () => {
  await using stack = await openStack({ ownRedis: true });
  const saved = [
    ...stack.addMedia(60),
    ...stack.addMedia(20, { format: 'amr' }),
    ...stack.addMedia(20, { ageMs: DAY_MS }),
  ];
  const gone = stack.addMedia(15, { ageMs: 4 * DAY_MS });
  const worker = stack.worker();
  const kills: (number | NodeJS.Signals)[] = [];
  let isOver = false;

  /** A catalog process after the other, each killed in the middle of whatever it does. */
  async function killing(): Promise<void> {
    for (let turn = 0; !isOver || turn < 4; turn += 1) {
      const catalog = stack.catalog(BUSY);
      await catalog.said('"msg":"catalog started"');
      // Later each time, and while it does the next.
      await eventually(() => (isOver || logLines(catalog, 'flushed').length >= turn % 4 ? true : undefined));
      catalog.process.kill('SIGKILL');
      kills.push(await catalog.exited);
    }
  }

  const killed = killing();
  for (const media of [...saved, ...gone]) await stack.queue.door.admit([jobOf(media)]);
  await untilIdle(stack);
  isOver = true;
  // The last one may still wait for a flush.
  await stack.queue.door.admit(stack.addMedia(1).map(jobOf));
  await killed;
  await untilIdle(stack);
  expect(kills.length).toBeGreaterThan(2);

  const last = stack.catalog(BUSY);
  await eventually(async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined));
  await last.stop();
  expect(last.process.exitCode).toBe(0);
  await worker.stop();

  const rows = await catalogRows(stack, 'media');
  expect(rows).toHaveLength(saved.length + 1);
  expect(sorted(rows)).toEqual(sorted(await rowsOfObjects(stack)));
  const letters = await catalogRows(stack, 'dead-letters');
  expect(letters.map((row) => row['media_id']).toSorted()).toEqual(gone.map(({ mediaId }) => mediaId).toSorted());
  expect(await lettersOf(stack)).toHaveLength(gone.length);
  const accepted = await catalogRows(stack, 'accepted');
  expect(new Set(accepted.map((row) => row['media_id'])).size).toBe(saved.length + gone.length + 1);
}, 120_000);
