import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { tablePrefix } from '../../src/catalog/catalog-keys.ts';
import { derivedRowOf } from '../../src/catalog/derived-files.ts';
import { catalogRows, filesOf, rowsOfObjects, sorted } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { amrOf, INSTALL_TIMEOUT_MS, makeByFfmpeg, provideFfmpeg } from '../support/ffmpeg.ts';
import { jobOf, keysBelow, logLines, openStack, type Stack, untilIdle } from '../support/stack.ts';
import { sha256Of } from '../support/store.ts';

const never = new AbortController().signal;
const BUSY = { CATALOG_FLUSH_ROWS: '7', CATALOG_FLUSH_SECONDS: '0.05', WORKER_LOCK_SECONDS: '1' };

beforeAll(async () => {
  await provideFfmpeg();
}, INSTALL_TIMEOUT_MS);

/** Archives pictures and voices that can be seen and heard, and one picture that can not. */
async function archived(stack: Stack): Promise<void> {
  const picture = join(stack.folder, 'picture.jpg');
  await makeByFfmpeg(picture, '-f', 'lavfi', '-i', 'testsrc=size=640x480', '-frames:v', '1');
  const bytes = await readFile(picture);
  const media = [
    ...stack.addMedia(3, { bytes }),
    ...stack.addMedia(2, { format: 'amr', bytes: amrOf(50) }),
    ...stack.addMedia(1, { bytes: Buffer.concat([bytes.subarray(0, 4), Buffer.alloc(300, 7)]) }),
  ];
  const worker = stack.worker();
  await stack.queue.door.admit(media.map(jobOf));
  await untilIdle(stack);
  await worker.stop();
}

test('files are made of archived media, once each, whoever is killed when; the media stay as they are', async () => {
  await using stack = await openStack({ ownRedis: true });
  await archived(stack);
  const before = sorted(await rowsOfObjects(stack));
  const catalog = stack.catalog(BUSY);
  for (let turn = 0; turn < 3; turn += 1) {
    const derive = stack.derive(BUSY);
    await derive.said('"msg":"derive started"');
    await eventually(() => (logLines(derive, 'derived').length >= turn ? true : undefined));
    derive.process.kill('SIGKILL');
    await derive.exited;
  }
  const derive = stack.derive(BUSY);
  await eventually(async () => ((await keysBelow(stack, 'derived/')).length === 5 ? true : undefined), 60_000);
  await derive.said('"msg":"nothing could be made of a media"');
  await derive.stop();
  expect(derive.process.exitCode).toBe(0);
  await eventually(async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined));
  await catalog.stop();

  const rows = await catalogRows(stack, 'derived');
  expect(rows.map((row) => row['recipe']).toSorted()).toEqual([
    ...Array.from({ length: 3 }, () => 'image-thumbnail/1'),
    ...Array.from({ length: 2 }, () => 'voice-mp3/1'),
  ]);
  const files = filesOf(stack);
  const media = new Map((await catalogRows(stack, 'media')).map((row) => [row['key'], row]));
  for (const row of rows) {
    const key = String(row['key']);
    const bytes = await files.getBytes(key, 10_000_000, never);
    const head = await files.head(key, never);
    if (!bytes.ok || bytes.value === undefined || !head.ok || head.value === undefined) throw new Error(key);
    expect(sha256Of(Buffer.from(bytes.value))).toBe(row['sha256']);
    expect(head.value.contentType).toBe(row['content_type']);
    const source = media.get(row['source_key']);
    expect(row['source_sha256']).toBe(source?.['sha256']);
    expect(key).toContain(`/${String(source?.['media_id'])}/`);
    // The object alone says the same.
    expect(derivedRowOf(head.value)).toEqual(row);
  }
  expect(sorted(await rowsOfObjects(stack))).toEqual(before);
  for await (const { key } of files.list(tablePrefix('derived'), never)) await files.remove(key, never);
  expect((await stack.command(['catalog', 'rebuild', '--json'])).rows().at(-1)).toMatchObject({ derived: 5, added: 0 });
  expect(sorted(await catalogRows(stack, 'derived'))).toEqual(sorted(rows));
}, 120_000);

test('what was made and not told of before a kill is told of as it is, and not made again', async () => {
  await using stack = await openStack({ ownRedis: true });
  await archived(stack);
  const outboxLength = (): Promise<number> => stack.redis.xlen(stack.queue.keys.outbox);
  const catalog = stack.catalog(BUSY);
  await eventually(async () => ((await outboxLength()) === 0 ? true : undefined));
  await catalog.stop();
  const killed = stack.derive(BUSY);
  await eventually(async () => ((await outboxLength()) === 5 ? true : undefined), 60_000);
  killed.process.kill('SIGKILL');
  await killed.exited;
  await stack.redis.del(stack.queue.keys.outbox);
  const derive = stack.derive(BUSY);
  await eventually(async () => ((await outboxLength()) === 5 ? true : undefined), 60_000);
  await derive.stop();
  expect(logLines(derive, 'derived')).toEqual([]);
  const again = stack.catalog(BUSY);
  await eventually(async () => ((await outboxLength()) === 0 ? true : undefined));
  await again.stop();
  const rows = await catalogRows(stack, 'derived');
  expect(rows).toHaveLength(5);
  for (const row of rows) {
    const head = await filesOf(stack).head(String(row['key']), never);
    expect(head.ok && head.value && derivedRowOf(head.value)).toEqual(row);
  }
}, 120_000);

test('where there is no ffmpeg it says so, with what to do, and ends with 1', async () => {
  await using stack = await openStack();
  const derive = stack.derive({ PATH: '/nowhere' });
  expect(await derive.exited).toBe(1);
  expect(derive.log()).toContain('apt-get install ffmpeg');
});
