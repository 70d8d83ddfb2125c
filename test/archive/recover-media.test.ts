import { PutObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { describeObject } from '../../src/archive/object-metadata.ts';
import { recoverMedia } from '../../src/archive/recover-media.ts';
import type { FailureCode } from '../../src/failure.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { mediaKey, mediaKeyStem } from '../../src/store/object-keys.ts';
import type { Fault, S3Operation } from '../support/fault-proxy.ts';
import { testJob } from '../support/jobs.ts';
import {
  openEmbeddedBackend,
  openStoreBench,
  type S3Backend,
  type StoreBench,
  sha256Of,
  someBytes,
  wholeObject,
} from '../support/store.ts';

const never = new AbortController().signal;
const BUSY: Fault = { type: 'answer', status: 503, code: 'SlowDown' };
const REGION = { 'x-amz-bucket-region': 'eu-west-1' };
const ELSEWHERE: Fault = { type: 'answer', status: 301, code: 'PermanentRedirect', headers: REGION };
const DENIED: Fault = { type: 'answer', status: 403, code: 'AccessDenied' };
const NOT_IMPLEMENTED: Fault = { type: 'answer', status: 501, code: 'NotImplemented' };
const NOTHING = { ok: true, value: undefined };

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

/** Puts a media where an attempt would have put it, with or without its hash in the metadata. */
async function archived(
  { store }: StoreBench,
  job: MediaJob,
  body = someBytes(500),
  { hashed = true, extension = 'jpg' } = {},
): Promise<{ readonly key: string; readonly sizeBytes: number; readonly sha256: string }> {
  const key = mediaKey(job, extension);
  const sha256 = sha256Of(body);
  const facts = { declaredType: 'image/jpeg' };
  const { metadata } = describeObject(job, facts, undefined, job.receivedAt, hashed ? sha256 : undefined);
  expect(await store.write(wholeObject(body, { key, metadata }), never)).toMatchObject({ ok: true });
  return { key, sizeBytes: body.byteLength, sha256 };
}

describe('a media that an attempt has left in the bucket', () => {
  test.each([
    ['with its hash', true],
    ['without a hash, which is then read', false],
  ])('is found %s', async (_what, hashed) => {
    await using bench = await openStoreBench(backend);
    const job = testJob();
    const left = await archived(bench, job, someBytes(500), { hashed });
    expect(await recoverMedia(bench.store, job, never)).toMatchObject({
      ok: true,
      value: { ...left, contentType: 'image/jpeg', metadata: { 'media-id': job.mediaId }, created: false },
    });
    expect(bench.proxy.count('GetObject')).toBe(hashed ? 0 : 1);
  });

  test('is found whatever its extension', async () => {
    await using bench = await openStoreBench(backend);
    const job = testJob();
    const { key } = await archived(bench, job, someBytes(5), { extension: 'webp' });
    expect(await recoverMedia(bench.store, job, never)).toMatchObject({ ok: true, value: { key } });
  });

  test('is not there when only its likes are', async () => {
    await using bench = await openStoreBench(backend);
    const job = testJob({ kind: 'voice' });
    await archived(bench, { ...job, variant: 'hd-voice' });
    await archived(bench, { ...job, mediaId: `${job.mediaId}2` });
    await archived(bench, { ...job, mediaId: `${job.mediaId}-` });
    await archived(bench, { ...job, kind: 'video' });
    await archived(bench, { ...job, receivedAt: '2026-06-14T11:00:00Z' });
    expect(await recoverMedia(bench.store, job, never)).toEqual(NOTHING);
  });

  test('is told as it lies there, whoever put it there', async () => {
    await using bench = await openStoreBench(backend);
    const job = testJob();
    const key = mediaKey(job, 'jpg');
    const bytes = someBytes(77);
    await bench.direct.send(new PutObjectCommand({ Bucket: backend.bucket, Key: key, Body: bytes }));
    expect(await recoverMedia(bench.store, job, never)).toMatchObject({
      ok: true,
      value: { key, sizeBytes: 77, sha256: sha256Of(bytes), created: false },
    });
  });
});

test('a media that never got there is not found', async () => {
  await using bench = await openStoreBench(backend);
  expect(await recoverMedia(bench.store, testJob(), never)).toEqual(NOTHING);
});

test('a media that goes away while it is read is not found', async () => {
  await using bench = await openStoreBench(backend);
  const job = testJob();
  await archived(bench, job, someBytes(5), { hashed: false });
  bench.proxy.arm('GetObject', { type: 'answer', status: 404, code: 'NoSuchKey' });
  expect(await recoverMedia(bench.store, job, never)).toEqual(NOTHING);
});

describe('uploads', () => {
  test('that were under way are looked for below this media alone', async () => {
    await using bench = await openStoreBench(backend);
    const job = testJob();
    await recoverMedia(bench.store, job, never);
    const looks = bench.proxy.seen.filter(({ operation }) => operation === 'ListMultipartUploads');
    expect(looks.map(({ query }) => query['prefix'])).toEqual([`${mediaKeyStem(job)}.`]);
  });

  test.each([
    ['denied', DENIED],
    ['not known to the store', NOT_IMPLEMENTED],
  ])('are left alone where listing them is %s', async (_what, fault) => {
    await using bench = await openStoreBench(backend);
    const job = testJob();
    const { key } = await archived(bench, job);
    bench.proxy.arm('ListMultipartUploads', fault);
    expect(await recoverMedia(bench.store, job, never)).toMatchObject({ ok: true, value: { key } });
  });
});

describe('nobody says that a media is not there', () => {
  test.each<[S3Operation, Fault, FailureCode]>([
    ['ListMultipartUploads', BUSY, 'store-busy'],
    ['ListObjects', BUSY, 'store-busy'],
    ['ListObjects', { type: 'lose-answer' }, 'store-unreachable'],
    ['ListObjects', { type: 'answer', status: 404, code: 'NoSuchBucket' }, 'store-bucket-missing'],
    ['ListObjects', ELSEWHERE, 'store-region-wrong'],
    ['HeadObject', BUSY, 'store-busy'],
    ['GetObject', BUSY, 'store-busy'],
    ['GetObject', { type: 'cut-answer', afterBytes: 3 }, 'store-unreachable'],
  ])('when %s meets %j', async (operation, fault, code) => {
    await using bench = await openStoreBench(backend);
    const job = testJob();
    await archived(bench, job, someBytes(500), { hashed: false });
    bench.proxy.arm(operation, fault);
    expect(await recoverMedia(bench.store, job, never)).toMatchObject({ ok: false, failure: { code } });
  });
});

test('where objects may not be listed it is taken for missing, so that a media that is lost can be given up', async () => {
  await using bench = await openStoreBench(backend);
  const job = testJob();
  await archived(bench, job);
  bench.proxy.arm('ListObjects', DENIED);
  expect(await recoverMedia(bench.store, job, never)).toEqual(NOTHING);
});

test('an abort throws its reason', async () => {
  await using bench = await openStoreBench(backend);
  const reason = new Error('stop');
  await expect(recoverMedia(bench.store, testJob(), AbortSignal.abort(reason))).rejects.toBe(reason);
});
