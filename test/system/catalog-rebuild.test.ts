import { expect, test } from 'vitest';
import { dayPrefix, tablePrefix } from '../../src/catalog/catalog-keys.ts';
import { PARQUET_TYPE } from '../../src/catalog/flush.ts';
import { dayOf } from '../../src/store/object-keys.ts';
import { iso } from '../../src/time.ts';
import { catalogRows, filesOf, sorted } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { jobOf, openStack, type Stack, untilIdle } from '../support/stack.ts';

const DAY_MS = 86_400_000;
const never = new AbortController().signal;
const BUSY = { CATALOG_FLUSH_ROWS: '7', CATALOG_FLUSH_SECONDS: '0.05', WORKER_LOCK_SECONDS: '1' };
const PART_SIZE_BYTES = 5 * 1024 * 1024;
const PERSON = { ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: 'a key of sixteen letters' };

/** Archives media of all kinds and lets the catalog process write their rows. */
async function filled(): Promise<Stack> {
  const stack = await openStack({ ownRedis: true, env: { ARCHIVE_PART_SIZE: '5MiB', ...PERSON } });
  const media = [
    ...stack.addMedia(10),
    ...stack.addMedia(3, { format: 'silk' }),
    ...stack.addMedia(3, { ageMs: DAY_MS }),
    ...stack.addMedia(2, { format: 'mp4', sizeBytes: PART_SIZE_BYTES + 1 }),
  ];
  const gone = stack.addMedia(4, { ageMs: 4 * DAY_MS });
  const labels = [
    { case: '42', note: '值' },
    Object.fromEntries(Array.from({ length: 12 }, (_, n) => [`n${n}`, '长'.repeat(90)])),
  ];
  const jobs = [...media, ...gone].map((one, index) => ({
    ...jobOf(one),
    source: { messageId: `消息 ${index}`, openId: `person-${index % 3}` },
    ...(index % 3 === 0 ? {} : { labels: labels[index % 2] ?? {} }),
  }));
  const [voice] = media.filter(({ format }) => format === 'silk').map(jobOf);
  const worker = stack.worker();
  await stack.queue.door.admit([
    ...jobs.map((job, index) => (index % 2 === 0 ? job : { ...job, kind: undefined })).map(cleaned),
    { ...voice, variant: 'hd-voice' },
  ]);
  await untilIdle(stack);
  await flushed(stack);
  await worker.stop();
  return stack;
}

function cleaned<T extends object>(job: T): T {
  return Object.fromEntries(Object.entries(job).filter(([, value]) => value !== undefined)) as T;
}

async function flushed(stack: Stack): Promise<void> {
  const catalog = stack.catalog(BUSY);
  await eventually(async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined));
  await catalog.stop();
}

test('rows that are made anew from the bucket alone are those that the outbox brought', async () => {
  await using stack = await filled();
  const [media, letters] = [await catalogRows(stack, 'media'), await catalogRows(stack, 'dead-letters')];
  expect(media).toHaveLength(19);
  expect(letters).toHaveLength(4);
  expect(media.filter((row) => row['labels'] !== null).length).toBeGreaterThan(5);
  expect(media.filter((row) => String(row['open_id']).startsWith('hmac-sha256:'))).toHaveLength(18);
  expect(media.filter((row) => row['variant'] === 'hd-voice')).toHaveLength(1);

  const same = await stack.command(['catalog', 'rebuild', '--json', '--dry-run']);
  expect(same.rows()).toMatchObject([{ objects: 19, added: 0, removed: 0, foreign: 0, unread: 0 }]);

  const files = filesOf(stack);
  for (const table of ['media', 'dead-letters'] as const) {
    for await (const { key } of files.list(tablePrefix(table), never)) await files.remove(key, never);
  }
  expect(await catalogRows(stack, 'media')).toEqual([]);
  const rebuilt = await stack.command(['catalog', 'rebuild', '--json']);
  expect(rebuilt.code).toBe(0);
  expect(rebuilt.rows().at(-1)).toMatchObject({ objects: 19, added: 19, removed: 0, letters: 4 });
  expect(sorted(await catalogRows(stack, 'media'))).toEqual(sorted(media));
  expect(sorted(await catalogRows(stack, 'dead-letters'))).toEqual(sorted(letters));
  const again = await stack.command(['catalog', 'rebuild', '--json']);
  expect(again.rows()).toMatchObject([{ objects: 19, added: 0, removed: 0, letters: 0 }]);
}, 120_000);

test('what the outbox brings after a rebuild has found it is there once', async () => {
  await using stack = await openStack({ ownRedis: true });
  const worker = stack.worker();
  await stack.queue.door.admit(stack.addMedia(6).map(jobOf));
  await untilIdle(stack);
  await worker.stop();
  // Their rows are in the outbox still.
  const rebuilt = await stack.command(['catalog', 'rebuild', '--json']);
  expect(rebuilt.rows().at(-1)).toMatchObject({ objects: 6, added: 6 });
  await flushed(stack);
  expect(await catalogRows(stack, 'media')).toHaveLength(6);
}, 120_000);

test('a row that was changed, or is there twice, is made right; what is not ours is told', async () => {
  await using stack = await filled();
  const rows = await catalogRows(stack, 'media');
  const files = filesOf(stack);
  const dt = dayOf(iso(Date.now()));
  const folder = stack.folder;
  for await (const { key } of files.list(dayPrefix('media', dt), never)) {
    expect(await files.getFile(key, `${folder}/copy.parquet`, never)).toMatchObject({ ok: true, value: true });
    const copied = await files.putFile(
      key.replace(/[^/]+$/, 'copy.parquet'),
      `${folder}/copy.parquet`,
      PARQUET_TYPE,
      never,
    );
    expect(copied).toMatchObject({ ok: true });
    break;
  }
  await files.putBytes(
    `media/app=wx0123456789abcdef/kind=image/dt=${dt}/foreign.jpg`,
    Buffer.from('x'),
    'image/jpeg',
    never,
  );
  expect((await catalogRows(stack, 'media')).length).toBeGreaterThan(rows.length);
  const rebuilt = await stack.command(['catalog', 'rebuild', '--json', '--no-lease'], {
    env: { REDIS_URL: 'redis://127.0.0.1:1' },
  });
  expect(rebuilt.code).toBe(0);
  expect(rebuilt.stderr).toContain('make sure that no catalog process runs');
  expect(rebuilt.rows().at(-1)).toMatchObject({ added: 0, foreign: 1 });
  expect(sorted(await catalogRows(stack, 'media'))).toEqual(sorted(rows));
}, 120_000);
