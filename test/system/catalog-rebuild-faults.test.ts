import { spawn } from 'node:child_process';
import { CopyObjectCommand } from '@aws-sdk/client-s3';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { dayPrefix, tablePrefix } from '../../src/catalog/catalog-keys.ts';
import type { AnyRow } from '../../src/catalog/table.ts';
import { cliPath } from '../../src/demo/worker-process.ts';
import { releaseLease, takeLease } from '../../src/redis/lease.ts';
import { dayOf } from '../../src/store/object-keys.ts';
import { iso } from '../../src/time.ts';
import { catalogRows, filesOf, sorted } from '../support/catalog.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { eventually } from '../support/eventually.ts';
import { type FaultProxy, startFaultProxy } from '../support/fault-proxy.ts';
import { type CommandResult, jobOf, keysBelow, openStack, type Stack, untilIdle } from '../support/stack.ts';

vi.setConfig({ testTimeout: 120_000 });

const never = new AbortController().signal;
/** No day is closed unless the test says so. */
const BUSY = {
  CATALOG_FLUSH_ROWS: '1',
  CATALOG_FLUSH_SECONDS: '0.05',
  CATALOG_CLOSE_AFTER_HOURS: '72',
  WORKER_LOCK_SECONDS: '1',
};
const MIB = 1024 * 1024;
const DAY_MS = 86_400_000;
const TODAY = dayOf(iso(Date.now()));

let stack: Stack;
let proxy: FaultProxy;

beforeEach(async () => {
  stack = await openStack({ ownRedis: true, env: { ...COMPILE_CACHE, ARCHIVE_PART_SIZE: '5MiB' } });
  proxy = await startFaultProxy(stack.s3.endpoint);
});

afterEach(async () => {
  await proxy[Symbol.asyncDispose]();
  await stack[Symbol.asyncDispose]();
});

/** Archives media; their rows wait in the outbox. */
async function archive(count: number, more: Parameters<Stack['addMedia']>[1] = {}): Promise<void> {
  const worker = stack.worker();
  await stack.queue.door.admit(stack.addMedia(count, more).map(jobOf));
  await untilIdle(stack);
  await worker.stop();
}

async function flushed(): Promise<void> {
  const catalog = stack.catalog(BUSY);
  await eventually(async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined));
  await catalog.stop();
}

/** Beside those of the test's own, through the proxy. */
function rebuild(...args: string[]): Promise<CommandResult> {
  const env = { AWS_ENDPOINT_URL_S3: proxy.endpoint, S3_FORCE_PATH_STYLE: 'true' };
  return stack.command(['catalog', 'rebuild', '--json', ...args], { env });
}

async function removeAll(prefix: string): Promise<void> {
  for (const key of await keysBelow(stack, prefix)) await filesOf(stack).remove(key, never);
}

/** A rebuild that the test may kill. */
function start(): { kill(): void; stderr(): string; readonly exited: Promise<number | null> } {
  const child = spawn(process.execPath, [cliPath(), 'catalog', 'rebuild'], {
    env: { ...stack.environment, WORKER_LOCK_SECONDS: '1', AWS_ENDPOINT_URL_S3: proxy.endpoint },
    stdio: ['ignore', 'ignore', 'pipe'],
    cwd: stack.folder,
  });
  let text = '';
  child.stderr.setEncoding('utf8').on('data', (more: string) => {
    text += more;
  });
  const { promise: exited, resolve } = Promise.withResolvers<number | null>();
  child.once('close', resolve);
  return { kill: () => void child.kill('SIGKILL'), stderr: () => text, exited };
}

function keys(rows: readonly AnyRow[]): string[] {
  return rows.map((row) => String(row['key'])).toSorted();
}

test('what the outbox brings long after a rebuild has found it is there once', async () => {
  const { outbox } = stack.queue.keys;
  await archive(3);
  const entries = await stack.redis.xrange(outbox, '-', '+');
  // As by workers that could not reach Redis meanwhile.
  await stack.redis.del(outbox);
  expect((await rebuild('--no-lease')).rows().at(-1)).toMatchObject({ objects: 3, added: 3 });
  for (const [index, [, fields]] of entries.entries())
    await stack.redis.xadd(outbox, `${Date.now() + 2 * DAY_MS}-${index}`, ...fields);
  await flushed();
  expect(await catalogRows(stack, 'media')).toHaveLength(3);
});

test('a file of the catalog that somebody has spoilt is made anew', async () => {
  await archive(4);
  await archive(2, { ageMs: 4 * DAY_MS });
  await flushed();
  const [media, letters] = [await catalogRows(stack, 'media'), await catalogRows(stack, 'dead-letters')];
  expect([media.length, letters.length]).toEqual([4, 2]);
  const files = filesOf(stack);
  const parts = [
    ...(await keysBelow(stack, tablePrefix('media'))),
    ...(await keysBelow(stack, tablePrefix('dead-letters'))),
  ];
  for (const key of parts) await files.putBytes(key, Buffer.from('PAR1 no more'), 'text/plain', never);
  const { code, rows } = await rebuild();
  expect(code).toBe(0);
  expect(rows().at(-1)).toMatchObject({ added: 4, letters: 2, spoilt: parts.length });
  expect(sorted(await catalogRows(stack, 'media'))).toEqual(sorted(media));
  expect(sorted(await catalogRows(stack, 'dead-letters'))).toEqual(sorted(letters));
});

test('rows whose objects and letters are gone go', async () => {
  await archive(3);
  await archive(2, { ageMs: 4 * DAY_MS });
  await flushed();
  await removeAll('media/');
  await removeAll('dead-letters/');
  expect((await rebuild('--dry-run')).rows().at(-1)).toMatchObject({ objects: 0, removed: 3, letters: 2 });
  expect(await catalogRows(stack, 'media')).toHaveLength(3);
  expect((await rebuild()).rows().at(-1)).toMatchObject({ objects: 0, removed: 3, letters: 2 });
  expect(await catalogRows(stack, 'media')).toEqual([]);
  expect(await catalogRows(stack, 'dead-letters')).toEqual([]);
});

test('a copy at another key is none of ours, and is named', async () => {
  await archive(2);
  const [key = ''] = await keysBelow(stack, 'media/');
  const copy = key.replace(/[^/]+$/, 'copy-of-it.jpg');
  const { bucket } = stack.s3;
  await stack.s3Client.send(new CopyObjectCommand({ Bucket: bucket, Key: copy, CopySource: `${bucket}/${key}` }));
  const { rows } = await rebuild();
  expect(rows()).toContainEqual({ foreign: copy });
  expect(rows().at(-1)).toMatchObject({ objects: 3, added: 2, foreign: 1 });
  await flushed();
  expect(await catalogRows(stack, 'media')).toHaveLength(2);
});

test('an object that can not be looked at keeps its row, is named, and the others are made', async () => {
  await archive(5);
  await flushed();
  const before = await catalogRows(stack, 'media');
  const [denied = '', lost = ''] = keys(before);
  const refusal = proxy.arm(({ operation, key }) => operation === 'HeadObject' && key === denied, {
    type: 'answer',
    status: 403,
  });
  await stack.opened.store.remove(lost, never);
  const { code, rows } = await rebuild();
  expect(code).toBe(1);
  expect(refusal.met).toBeGreaterThan(0);
  expect(rows()).toContainEqual({ unread: denied, code: 'store-denied', detail: expect.any(String) });
  expect(rows().at(-1)).toMatchObject({ objects: 4, added: 0, removed: 1, unread: 1 });
  expect(keys(await catalogRows(stack, 'media'))).toEqual(keys(before).filter((key) => key !== lost));

  await removeAll(tablePrefix('media'));
  expect((await rebuild()).rows().at(-1)).toMatchObject({ added: 3, unread: 1 });
  refusal.disarm();
  const again = await rebuild();
  expect(again.code).toBe(0);
  expect(again.rows().at(-1)).toMatchObject({ added: 1, removed: 0, unread: 0 });
});

test('a store that refuses everything ends it, and the rows stay', async () => {
  await archive(2);
  await flushed();
  proxy.arm('HeadObject', { type: 'answer', status: 403 });
  expect((await rebuild()).rows().at(-1)).toMatchObject({ objects: 2, added: 0, removed: 0, unread: 2 });
  expect(await catalogRows(stack, 'media')).toHaveLength(2);
});

test('the catalog process works on while objects are read, and what it writes meanwhile is there once', async () => {
  await archive(3, { format: 'mp4', sizeBytes: 5 * MIB + 1 });
  await flushed();
  await removeAll(tablePrefix('media'));
  // Stored in parts, so it is read for its hash.
  const reading = proxy.arm(({ operation, key }) => operation === 'GetObject' && key.startsWith('media/'), {
    type: 'hold-answer',
  });
  const rebuilding = rebuild();
  await eventually(() => (reading.met > 0 ? true : undefined));
  await archive(2);
  await flushed();
  expect(await catalogRows(stack, 'media')).toHaveLength(2);
  reading.release();
  const { code, rows } = await rebuilding;
  expect(code).toBe(0);
  expect(rows().at(-1)).toMatchObject({ objects: 5, added: 3, removed: 0 });
  expect(keys(await catalogRows(stack, 'media'))).toEqual((await keysBelow(stack, 'media/')).toSorted());
});

test('what is removed while objects are looked at does not come back', async () => {
  await archive(2);
  await archive(1, { format: 'mp4', sizeBytes: 5 * MIB + 1 });
  await flushed();
  await removeAll(tablePrefix('media'));
  const reading = proxy.arm(({ operation, key }) => operation === 'GetObject' && key.startsWith('media/'), {
    type: 'hold-answer',
  });
  const rebuilding = rebuild();
  await eventually(() => (reading.met > 0 && proxy.count('HeadObject') === 3 ? true : undefined));
  const [gone = ''] = await keysBelow(stack, 'media/app=wx0123456789abcdef/kind=image/');
  await stack.opened.store.remove(gone, never);
  reading.release();
  expect((await rebuilding).rows().at(-1)).toMatchObject({ objects: 2, added: 2 });
  expect(keys(await catalogRows(stack, 'media'))).not.toContain(gone);
});

test('waits for whoever has the lease', async () => {
  await archive(1);
  const lease = await takeLease(stack.redis, stack.queue.keys.catalogLease, DAY_MS);
  if (lease === undefined) throw new Error('somebody has the lease');
  const rebuilding = start();
  await eventually(() => (rebuilding.stderr().includes('the catalog process is at work: waiting') ? true : undefined));
  expect(await keysBelow(stack, tablePrefix('media'))).toEqual([]);
  await releaseLease(stack.redis, lease);
  expect(await rebuilding.exited).toBe(0);
  expect(await catalogRows(stack, 'media')).toHaveLength(1);
});

test('killed while it replaces files, and run again, it leaves each row once', async () => {
  await archive(6);
  await archive(2, { ageMs: DAY_MS });
  await flushed();
  const before = await catalogRows(stack, 'media');
  const gone = keys(before).find((key) => key.includes(TODAY)) ?? '';
  await stack.opened.store.remove(gone, never);
  for (const operation of ['PutObject', 'DeleteObject'] as const) {
    const held = proxy.arm(
      ({ operation: seen, key }) => seen === operation && key.startsWith(dayPrefix('media', TODAY)),
      { type: 'hold-answer' },
    );
    const rebuilding = start();
    await eventually(() => (held.met > 0 ? true : undefined));
    rebuilding.kill();
    await rebuilding.exited;
    held.disarm();
    held.release();
  }
  const { code } = await rebuild();
  expect(code).toBe(0);
  expect(sorted(await catalogRows(stack, 'media'))).toEqual(sorted(before.filter((row) => row['key'] !== gone)));
  expect(await keysBelow(stack, 'catalog/compactions/')).toEqual([]);
});

test('letters of every status are as the outbox told them, and one that the outbox lost is healed', async () => {
  const dead = stack.addMedia(3, { ageMs: 2 * DAY_MS });
  for (const { mediaId } of dead)
    stack.simulator.arm({ endpoint: 'media', mediaId, times: 1, action: { type: 'errcode', errcode: 40004 } });
  const worker = stack.worker();
  await stack.queue.door.admit(dead.map(jobOf));
  await archive(2, { ageMs: 4 * DAY_MS });
  await untilIdle(stack);
  const letters = await stack.command(['dead-letters', 'list', '--json', '--reason', 'media-type-unsupported']);
  expect(letters.rows()).toHaveLength(3);
  await stack.command(['dead-letters', 'replay', '--limit', '1', '--all', '--reason', 'media-type-unsupported']);
  await untilIdle(stack);
  await worker.stop();
  await stack.command(['dead-letters', 'replay', '--limit', '1', '--reason', 'media-type-unsupported']);
  await stack.command(['dead-letters', 'discard', '--limit', '1', '--reason', 'media-type-unsupported']);
  await flushed();
  const before = await catalogRows(stack, 'dead-letters');
  expect(before.map((row) => row['status']).toSorted()).toEqual(['discarded', 'open', 'open', 'replayed', 'resolved']);
  expect((await rebuild()).rows()).toHaveLength(1);
  await removeAll(tablePrefix('dead-letters'));
  expect((await rebuild()).rows().at(-1)).toMatchObject({ letters: 5 });
  expect(sorted(await catalogRows(stack, 'dead-letters'))).toEqual(sorted(before));

  // What the outbox loses is healed when its day is closed: also that a letter is no longer there.
  const [gone = '', kept = ''] = keys(before.filter((row) => row['status'] === 'open'));
  await stack.opened.store.remove(gone, never);
  await stack.redis.del(stack.queue.keys.outbox);
  const discarded = await stack.command(['dead-letters', 'discard', '--reason', 'media-expired']);
  expect(discarded.code).toBe(0);
  await stack.redis.del(stack.queue.keys.outbox);
  const catalog = stack.catalog({ ...BUSY, CATALOG_CLOSE_AFTER_HOURS: '0' });
  await catalog.said('"msg":"day closed"');
  await catalog.stop();
  const after = await catalogRows(stack, 'dead-letters');
  expect(keys(after)).toEqual(keys(before).filter((key) => key !== gone));
  expect(after.find((row) => row['key'] === kept)).toMatchObject({ status: 'discarded' });
});

test('of two objects of one media the later has the row, and a second run finds nothing to do', async () => {
  const [media] = stack.addMedia(1);
  if (media === undefined) throw new Error('there is no media');
  for (const job of [jobOf(media), { ...jobOf(media), kind: 'thumb' as const }]) {
    const worker = stack.worker();
    await stack.queue.door.admit([job]);
    await untilIdle(stack);
    await worker.stop();
    // A Redis that has lost everything does not know it any more.
    await stack.redis.flushall();
  }
  expect(await keysBelow(stack, 'media/')).toHaveLength(2);
  expect((await rebuild()).rows().at(-1)).toMatchObject({ objects: 2, added: 1 });
  const rows = await catalogRows(stack, 'media');
  expect(rows).toMatchObject([{ kind: 'thumb' }]);
  expect((await rebuild()).rows()).toMatchObject([{ objects: 2, added: 0, removed: 0 }]);
});
