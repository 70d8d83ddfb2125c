import { createHash } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { acceptedRowOf } from '../../src/catalog/accepted-table.ts';
import { eraseManifestLines } from '../../src/catalog/erase-manifest.ts';
import { rewriteOutbox, searchOutbox } from '../../src/catalog/erase-outbox.ts';
import { eraseFromReports } from '../../src/catalog/erase-reports.ts';
import { createTombstones, withoutErased } from '../../src/catalog/erase-tombstones.ts';
import { createWanted, mediaIdOf } from '../../src/catalog/erase-wanted.ts';
import { createOutbox } from '../../src/catalog/outbox.ts';
import { createOutboxReader } from '../../src/catalog/outbox-reader.ts';
import { type EmbeddedS3, startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { closeRedis, connectRedis } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import { type BucketFiles, createBucketFiles } from '../../src/store/bucket-files.ts';
import { createS3Client } from '../../src/store/s3-client.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { openOwnRedis } from '../support/own-redis.ts';
import { openTestRedis } from '../support/redis.ts';

const never = new AbortController().signal;
const MEDIA_ID = '-AFTE2T14GO_vriK5a3uKjRrbL09JWwCdz9b6va6sBf417KQClDU3UxCakgP';
const OTHER_ID = 'BFTE2T14GO_vriK5a3uKjRrbL09JWwCdz9b6va6sBf417KQClDU3UxCakgP';

let s3: EmbeddedS3;
let files: BucketFiles;
let folder: string;

beforeAll(async () => {
  s3 = await startEmbeddedS3('weixin-media');
  const partSizeBytes = 8 * 1024 * 1024;
  const credentials = { accessKeyId: 'test', secretAccessKey: new Secret('test') };
  const { bucket, endpoint } = s3;
  const client = createS3Client({ bucket, endpoint, partSizeBytes, forcePathStyle: true, credentials }, 4);
  files = createBucketFiles({ client, bucket, partSizeBytes });
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-erase-test-'));
});

afterAll(async () => {
  await rm(folder, { recursive: true });
  await s3.stop();
});

async function textAt(key: string): Promise<string> {
  const bytes = await files.getBytes(key, 1_000_000, never);
  if (!bytes.ok || bytes.value === undefined) throw new Error(`nothing at ${key}`);
  return Buffer.from(key.endsWith('.gz') ? gunzipSync(bytes.value) : bytes.value).toString();
}

describe('what is wanted', () => {
  test.each([
    [`media/app=${APP_ID}/kind=image/dt=2026-01-02/${MEDIA_ID}.jpg`, MEDIA_ID],
    [`media/app=${APP_ID}/kind=voice/dt=2026-01-02/${MEDIA_ID}.hd-voice.speex`, MEDIA_ID],
    [`dead-letters/app=${APP_ID}/dt=2026-01-02/${MEDIA_ID}.json`, MEDIA_ID],
    [`derived/app=${APP_ID}/kind=voice/dt=2026-01-02/${MEDIA_ID}/voice.mp3`, MEDIA_ID],
    [`derived/app=${APP_ID}/kind=voice/dt=2026-01-02/${MEDIA_ID}.voice.mp3`, MEDIA_ID],
    ['erasures/some.json', undefined],
  ])('the key %s is of %s', (key, mediaId) => {
    expect(mediaIdOf(key)).toBe(mediaId);
  });

  test('is found in a text as a word, in each form, and in nothing that only looks like it', () => {
    const openId = 'oVictimVictimVictimVictim_-01';
    const wanted = createWanted(APP_ID, openId, new Secret('a-key-of-the-operator'));
    wanted.mediaIds.add(MEDIA_ID).add('short');
    const [pseudonym = ''] = [...wanted.openIds].filter((form) => form.startsWith('hmac-'));
    for (const text of [
      MEDIA_ID,
      `{"a":["${openId}"]}`,
      `<FromUserName><![CDATA[${openId}]]>`,
      Buffer.from(openId).toString('base64url'),
      pseudonym,
      `{p}:media-${APP_ID}:${APP_ID}-${MEDIA_ID}:lock`,
      `${APP_ID}-short`,
      `${APP_ID}-${MEDIA_ID}.hd-voice`,
    ]) {
      expect(wanted.isIn(text), text).toBe(true);
    }
    for (const text of [OTHER_ID, `${MEDIA_ID}x`, `${openId}2`, 'short', `${OTHER_APP_ID}-short`, '']) {
      expect(wanted.isIn(text), text).toBe(false);
    }
    expect(wanted.isKey(`media/app=${OTHER_APP_ID}/kind=image/dt=2026-01-02/${MEDIA_ID}.jpg`)).toBe(false);
  });
});

test('a row that was noted before the erasure and read after it is left out', async () => {
  await using corner = await openTestRedis();
  const { redis, keys } = corner;
  const [erased, kept, hd] = [testJob(), testJob(), testJob({ kind: 'voice', variant: 'hd-voice' })];
  await createOutbox(redis, keys, Date.now).accepted([erased, kept, hd]);
  const tombstones = createTombstones(redis, keys);
  await tombstones.set([mediaJobId(erased), mediaJobId(hd)], 60_000);
  const reader = withoutErased(createOutboxReader(redis, keys, 'test'), tombstones);
  const batch = await reader.take(100);
  expect(batch.ids).toHaveLength(1);
  const rows = (await Array.fromAsync(batch.entries)).flatMap((entry) => entry.rows);
  const at = Date.parse(String(rows[0]?.['accepted_at']));
  expect(rows).toEqual([acceptedRowOf(kept, at)]);
  await reader.done(batch);
  expect(await redis.xlen(keys.outbox)).toBe(0);
});

test('an outbox that is written anew holds no byte of what was removed, and goes on where it was', async () => {
  await using own = await openOwnRedis({ arguments: ['--rdbcompression', 'no'] });
  const config = { url: new Secret(own.url), prefix: '{p}', sentinelMaster: '' };
  const redis = connectRedis(config, 'patient', 'test', () => undefined);
  await using _closed = { [Symbol.asyncDispose]: () => closeRedis(redis) };
  const keys = redisKeys('{p}');
  expect(await rewriteOutbox(redis, keys)).toBe(true);
  expect(await redis.exists(keys.outbox)).toBe(0);

  const jobs = [testJob(), testJob(), testJob()];
  for (const job of jobs) await createOutbox(redis, keys, Date.now).accepted([job]);
  const reader = createOutboxReader(redis, keys, 'test');
  const taken = await reader.take(1);
  // What is pending has a file of its name.
  expect(await rewriteOutbox(redis, keys)).toBe(false);
  await reader.done(taken);
  for (const job of jobs) await createOutbox(redis, keys, Date.now).accepted([job]);
  const [[id = ''] = []] = await redis.xrange(keys.outbox, '-', '+', 'COUNT', 1);
  await redis.xdel(keys.outbox, id);
  const [first, second, third] = jobs.map(({ mediaId }) => mediaId);
  const dump = async (): Promise<string> =>
    ((await redis.dumpBuffer(keys.outbox)) ?? Buffer.alloc(0)).toString('latin1');
  expect(await dump()).toContain(first);
  expect(await rewriteOutbox(redis, keys)).toBe(true);
  expect(await dump()).not.toContain(first);
  const rest = await reader.take(100);
  const rows = (await Array.fromAsync(rest.entries)).flatMap((entry) => entry.rows);
  expect(rows.map((row) => row['media_id'])).toEqual([second, third]);
});

test('the outbox is searched by person, without a change', async () => {
  await using corner = await openTestRedis();
  const { redis, keys } = corner;
  const job = testJob();
  await createOutbox(redis, keys, Date.now).accepted([job]);
  const wanted = createWanted(APP_ID, 'oVictimVictimVictimVictim_-01');
  expect(await searchOutbox(redis, keys, wanted)).toBe(0);
  wanted.mediaIds.add(job.mediaId);
  expect(await searchOutbox(redis, keys, wanted)).toBe(1);
  expect(await redis.xlen(keys.outbox)).toBe(1);
});

test('a manifest keeps the hash of its lines, and what is no gzip is named', async () => {
  const lines = [MEDIA_ID, OTHER_ID].map((name) => {
    return JSON.stringify({ key: `media/app=${APP_ID}/kind=image/dt=2026-01-02/${name}.jpg`, size: 3, sha256: '00' });
  });
  const [key, spoilt] = ['00000001', '00000002'].map((name) => `manifests/dt=2026-01-02/${name}-objects.ndjson.gz`);
  await files.putBytes(key ?? '', gzipSync(`${lines.join('\n')}\n`), 'application/x-ndjson', never);
  await files.putBytes(spoilt ?? '', Buffer.from('no gzip'), 'text/plain', never);
  const wanted = createWanted(APP_ID, undefined);
  wanted.mediaIds.add(MEDIA_ID);
  const erase = (dryRun: boolean): Promise<unknown> => eraseManifestLines({ files, folder }, wanted, dryRun, never);
  expect(await erase(true)).toEqual({ lines: 1, lists: 1, unreadable: [spoilt] });
  expect(await textAt(key ?? '')).toContain(MEDIA_ID);
  await erase(false);
  const [first = '', second = ''] = lines;
  const erased = createHash('sha256').update(first).digest('hex');
  expect(await textAt(key ?? '')).toBe(`{"erased":"${erased}"}\n${second}\n`);
  expect(await erase(true)).toMatchObject({ lines: 0 });
  expect(await files.head(key ?? '', never)).toMatchObject({ value: { contentType: 'application/x-ndjson' } });
});

test('a report loses the names, and stays what it was', async () => {
  const report = {
    wrong: [{ key: `media/app=${APP_ID}/kind=image/dt=2026-01-02/${MEDIA_ID}.jpg`, why: 'gone' }],
    n: 1,
  };
  await files.putBytes('verifications/a.json', Buffer.from(JSON.stringify(report)), 'application/json', never);
  await files.putBytes('verifications/b.txt', Buffer.from(`one\n${MEDIA_ID} is gone\n`), 'text/plain', never);
  const wanted = createWanted(APP_ID, undefined);
  wanted.mediaIds.add(MEDIA_ID);
  expect(await eraseFromReports(files, wanted, false, never)).toBe(2);
  expect(JSON.parse(await textAt('verifications/a.json'))).toEqual({ wrong: [{ key: '[erased]', why: 'gone' }], n: 1 });
  expect(await textAt('verifications/b.txt')).toBe('one\n[erased]\n');
  expect(await eraseFromReports(files, wanted, true, never)).toBe(0);
});
