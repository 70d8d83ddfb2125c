import { PutObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FAILURES, type FailureCode, FailureError, failure } from '../../src/failure.ts';
import type { Fault, S3Operation } from '../support/fault-proxy.ts';
import {
  chunksOf,
  newKey,
  openStoreBench,
  PART_SIZE_BYTES,
  type S3Backend,
  someBytes,
  streamedObject,
  wholeObject,
} from '../support/store.ts';

const never = new AbortController().signal;

/** The client tries a request so often, and then it is the retry schedule's. */
const TRIES = 3;

/** Long enough for a request that is answered, on a busy machine. */
const IMPATIENT = { connectMs: 5_000, idleMs: 3_000, responseMs: 3_000 };

const LOST: Fault = { type: 'lose-answer' };
const CUT: Fault = { type: 'cut-request', afterBytes: 1_000 };
const HANG: Fault = { type: 'hang', where: 'before' };
const HANG_AFTER: Fault = { type: 'hang', where: 'after' };
const CORRUPT: Fault = { type: 'corrupt', atByte: 500 };
const SLOW_DOWN: Fault = { type: 'answer', status: 503, code: 'SlowDown' };
const DENIED: Fault = { type: 'answer', status: 403, code: 'AccessDenied' };
const HTML = '<html><head><title>502</title></head><body><hr>nginx & co</body></html>';

interface Case {
  readonly what: string;
  readonly fault: Fault;
  readonly times?: number;
  /** `stored`, or the failure. */
  readonly becomes: 'stored' | FailureCode;
  /** How many requests of the kind there are, at most. */
  readonly requests: number;
}

const WHOLE: readonly Case[] = [
  { what: 'an answer lost once', fault: LOST, times: 1, becomes: 'stored', requests: 2 },
  { what: 'every answer lost', fault: LOST, becomes: 'stored', requests: TRIES },
  { what: 'a connection cut once', fault: CUT, times: 1, becomes: 'stored', requests: 2 },
  { what: 'every connection cut', fault: CUT, becomes: 'store-unreachable', requests: TRIES },
  { what: '503 once', fault: SLOW_DOWN, times: 1, becomes: 'stored', requests: 2 },
  { what: '503 for ever', fault: SLOW_DOWN, becomes: 'store-busy', requests: TRIES },
  {
    what: '500 for ever',
    fault: { type: 'answer', status: 500, code: 'InternalError' },
    becomes: 'store-busy',
    requests: TRIES,
  },
  {
    what: 'a page with 502',
    fault: { type: 'answer', status: 502, body: HTML },
    becomes: 'store-busy',
    requests: TRIES,
  },
  { what: 'an empty 504', fault: { type: 'answer', status: 504, body: '' }, becomes: 'store-busy', requests: TRIES },
  { what: '403', fault: DENIED, becomes: 'store-denied', requests: 1 },
  {
    what: 'a wrong signature',
    fault: { type: 'answer', status: 403, code: 'SignatureDoesNotMatch' },
    becomes: 'store-denied',
    requests: 1,
  },
  {
    what: 'a missing bucket',
    fault: { type: 'answer', status: 404, code: 'NoSuchBucket' },
    becomes: 'store-bucket-missing',
    requests: 1,
  },
  {
    what: 'BadDigest',
    fault: { type: 'answer', status: 400, code: 'BadDigest' },
    becomes: 'store-corrupted',
    requests: 1,
  },
  {
    what: 'an error that nobody knows',
    fault: { type: 'answer', status: 400, code: 'TheMoonIsWrong' },
    becomes: 'store-refused',
    requests: 1,
  },
  { what: 'a bit that flips on the way', fault: CORRUPT, becomes: 'store-corrupted', requests: 1 },
  { what: 'nothing at all', fault: HANG, becomes: 'store-unreachable', requests: TRIES },
  { what: 'nothing at all, once', fault: HANG, times: 1, becomes: 'stored', requests: TRIES },
  { what: 'silence after the deed', fault: HANG_AFTER, becomes: 'stored', requests: TRIES },
];

const PARTS: readonly (Case & { readonly on: S3Operation })[] = [
  { what: '503 once', on: 'CreateMultipartUpload', fault: SLOW_DOWN, times: 1, becomes: 'stored', requests: 2 },
  { what: '503 for ever', on: 'CreateMultipartUpload', fault: SLOW_DOWN, becomes: 'store-busy', requests: TRIES },
  { what: 'an answer lost once', on: 'CreateMultipartUpload', fault: LOST, times: 1, becomes: 'stored', requests: 2 },
  { what: '403', on: 'CreateMultipartUpload', fault: DENIED, becomes: 'store-denied', requests: 1 },
  { what: 'an answer lost once', on: 'UploadPart', fault: LOST, times: 1, becomes: 'stored', requests: 4 },
  { what: 'a connection cut once', on: 'UploadPart', fault: CUT, times: 1, becomes: 'stored', requests: 4 },
  { what: 'every connection cut', on: 'UploadPart', fault: CUT, becomes: 'store-unreachable', requests: 3 * TRIES },
  { what: '503 once', on: 'UploadPart', fault: SLOW_DOWN, times: 1, becomes: 'stored', requests: 4 },
  { what: '503 for ever', on: 'UploadPart', fault: SLOW_DOWN, becomes: 'store-busy', requests: 3 * TRIES },
  { what: '403', on: 'UploadPart', fault: DENIED, becomes: 'store-denied', requests: 3 },
  { what: 'a bit that flips on the way', on: 'UploadPart', fault: CORRUPT, becomes: 'store-corrupted', requests: 3 },
  { what: 'nothing at all', on: 'UploadPart', fault: HANG, becomes: 'store-unreachable', requests: 3 * TRIES },
  { what: 'an answer lost once', on: 'CompleteMultipartUpload', fault: LOST, times: 1, becomes: 'stored', requests: 2 },
  { what: 'every answer lost', on: 'CompleteMultipartUpload', fault: LOST, becomes: 'stored', requests: TRIES },
  {
    what: 'every connection cut',
    on: 'CompleteMultipartUpload',
    fault: { type: 'cut-request', afterBytes: 10 },
    becomes: 'store-unreachable',
    requests: TRIES,
  },
  { what: '503 for ever', on: 'CompleteMultipartUpload', fault: SLOW_DOWN, becomes: 'store-busy', requests: TRIES },
  {
    what: 'an error under status 200',
    on: 'CompleteMultipartUpload',
    fault: { type: 'answer', status: 200, code: 'InternalError' },
    becomes: 'store-busy',
    requests: TRIES,
  },
  { what: '403', on: 'CompleteMultipartUpload', fault: DENIED, becomes: 'store-denied', requests: 1 },
  { what: 'nothing at all', on: 'CompleteMultipartUpload', fault: HANG, becomes: 'store-unreachable', requests: TRIES },
  {
    what: 'silence after the deed',
    on: 'CompleteMultipartUpload',
    fault: HANG_AFTER,
    becomes: 'stored',
    requests: TRIES,
  },
];

/** What the archive store makes of faults on the way to a server, whichever server it is. */
export function describeStoreFaults(name: string, open: () => Promise<S3Backend>): void {
  describe(`on a bad way to ${name}`, () => {
    let backend: S3Backend;

    beforeAll(async () => {
      backend = await open();
    });

    afterAll(() => backend[Symbol.asyncDispose]());

    function openBench(faults: readonly Fault[]): ReturnType<typeof openStoreBench> {
      return openStoreBench(backend, {
        checkPayload: !backend.checksPayload,
        ...(backend.listsUploads ? {} : { lists: 'uploads' as const }),
        ...(faults.some(({ type }) => type === 'hang' || type === 'stall-answer') ? { timeouts: IMPATIENT } : {}),
      });
    }

    describe('a write that meets', () => {
      test.concurrent.each(WHOLE)('$what: $becomes', async ({ fault, times, becomes, requests }) => {
        await using bench = await openBench([fault]);
        bench.proxy.arm('PutObject', fault, times);
        const object = wholeObject(someBytes(300_000));
        const written = await bench.store.write(object, never);
        const lies = await bench.bytesAt(object.key);
        if (becomes === 'stored') {
          const etag = await bench.etagAt(object.key);
          expect(written).toEqual({ ok: true, value: { created: true, digest: object.digest, etag } });
          expect(lies).toEqual(object.body);
        } else {
          expect(written).toMatchObject({ ok: false, failure: { code: becomes } });
          expect(FAILURES[becomes].action).toBe('retry');
          expect(lies).toBeUndefined();
        }
        expect(bench.proxy.count('PutObject')).toBeLessThanOrEqual(requests);
        expect(bench.proxy.count('HeadObject')).toBeLessThanOrEqual(1);
      });
    });

    describe('a streamed write that meets', () => {
      test.concurrent.each(PARTS)('$what at $on: $becomes', async ({ on, fault, times, becomes, requests }) => {
        await using bench = await openBench([fault]);
        bench.proxy.arm(on, fault, times);
        const body = someBytes(2 * PART_SIZE_BYTES + 1_001);
        const object = streamedObject(body);
        const written = await bench.store.writeStream(object, never);
        const lies = await bench.bytesAt(object.key);
        if (becomes === 'stored') {
          const etag = await bench.etagAt(object.key);
          expect(written).toEqual({ ok: true, value: { created: true, digest: object.digest(), etag } });
          expect(lies?.equals(body)).toBe(true);
        } else {
          expect(written).toMatchObject({ ok: false, failure: { code: becomes } });
          expect(lies).toBeUndefined();
        }
        expect(await bench.openUploads(object.key)).toEqual([]);
        expect(bench.proxy.count(on)).toBeLessThanOrEqual(requests);
      });
    });

    describe('a completed upload whose answer has no ETag', () => {
      const body = '<CompleteMultipartUploadResult><ETag></ETag></CompleteMultipartUploadResult>';
      const NO_ETAG: Fault = { type: 'replace-answer', body };

      test('is looked at for it', async () => {
        await using bench = await openBench([NO_ETAG]);
        bench.proxy.arm('CompleteMultipartUpload', NO_ETAG);
        const object = streamedObject(someBytes(PART_SIZE_BYTES + 1));
        const written = await bench.store.writeStream(object, never);
        const etag = await bench.etagAt(object.key);
        expect(written).toEqual({ ok: true, value: { created: true, digest: object.digest(), etag } });
        expect(bench.proxy.count('HeadObject')).toBe(1);
      });

      test('is stored all the same, though it can not be looked at', async () => {
        await using bench = await openBench([NO_ETAG]);
        bench.proxy.arm('CompleteMultipartUpload', NO_ETAG);
        bench.proxy.arm('HeadObject', DENIED);
        const object = streamedObject(someBytes(PART_SIZE_BYTES + 1));
        const written = await bench.store.writeStream(object, never);
        expect(written).toEqual({ ok: true, value: { created: true, digest: object.digest() } });
      });
    });

    describe('a write whose outcome nobody knows', () => {
      test('is a conflict when other bytes lie there', async () => {
        await using bench = await openBench([CUT]);
        const theirs = wholeObject(someBytes(300_000));
        const ours = wholeObject(someBytes(300_000), { key: theirs.key });
        expect(await bench.store.write(theirs, never)).toMatchObject({ ok: true });
        bench.proxy.arm('PutObject', CUT);
        expect(await bench.store.write(ours, never)).toMatchObject({ failure: { code: 'object-conflict' } });
        expect(await bench.bytesAt(theirs.key)).toEqual(theirs.body);
      });

      test('is a success when another writer has stored the same bytes', async () => {
        await using bench = await openBench([CUT]);
        const theirs = wholeObject(someBytes(300_000));
        const ours = wholeObject(theirs.body, { key: theirs.key });
        expect(await bench.store.write(theirs, never)).toMatchObject({ ok: true });
        bench.proxy.arm('PutObject', CUT);
        const { key, contentType, metadata, digest } = theirs;
        const etag = await bench.etagAt(key);
        const stored = { key, sizeBytes: 300_000, contentType, metadata, etag, lastModified: expect.any(Number) };
        expect(await bench.store.write(ours, never)).toEqual({
          ok: true,
          value: { created: false, digest, etag, stored },
        });
      });

      test('is told as the fault it met when the store can not be asked, and the next try finds the object', async () => {
        await using bench = await openBench([LOST]);
        const lost = bench.proxy.arm('PutObject', LOST);
        const blind = bench.proxy.arm('HeadObject', SLOW_DOWN);
        const object = wholeObject(someBytes(300_000));
        expect(await bench.store.write(object, never)).toMatchObject({ failure: { code: 'store-unreachable' } });
        lost.disarm();
        blind.disarm();
        expect(await bench.store.write(wholeObject(object.body, { key: object.key }), never)).toMatchObject({
          ok: true,
        });
        expect(await bench.bytesAt(object.key)).toEqual(object.body);
      });
    });

    describe('a create-only write that the store refuses', () => {
      const EXISTS: Fault = { type: 'answer', status: 412, code: 'PreconditionFailed' };
      const body = someBytes(1_000);
      const put = async (bench: Awaited<ReturnType<typeof openBench>>, key: string, bytes: Buffer): Promise<void> => {
        const place = { Bucket: backend.bucket, Key: key };
        await bench.direct.send(new PutObjectCommand({ ...place, Body: bytes }));
      };

      test.each([
        { what: 'the same bytes', theirs: body, becomes: 'success' },
        { what: 'as many other bytes', theirs: someBytes(1_000), becomes: 'object-conflict' },
        { what: 'more bytes', theirs: Buffer.concat([body, body]), becomes: 'object-conflict' },
        { what: 'no bytes', theirs: Buffer.alloc(0), becomes: 'object-conflict' },
      ])('because of $what that somebody else put there ends as $becomes', async ({ theirs, becomes }) => {
        await using bench = await openBench([EXISTS]);
        const object = wholeObject(body);
        await put(bench, object.key, theirs);
        bench.proxy.arm('PutObject', EXISTS);
        const { key } = object;
        const etag = await bench.etagAt(key);
        const value = { created: false, etag, stored: { key, etag, metadata: {} } };
        expect(await bench.store.write(object, never)).toMatchObject(
          becomes === 'success' ? { ok: true, value } : { ok: false, failure: { code: becomes } },
        );
        expect(await bench.bytesAt(object.key)).toEqual(theirs);
      });

      test('is tried again later when the object has gone meanwhile, or can not be looked at', async () => {
        await using bench = await openBench([EXISTS]);
        bench.proxy.arm('PutObject', EXISTS);
        const gone = await bench.store.write(wholeObject(body), never);
        bench.proxy.arm('HeadObject', SLOW_DOWN);
        const unseen = await bench.store.write(wholeObject(body), never);
        for (const written of [gone, unseen]) {
          expect(written).toMatchObject({ ok: false });
          if (!written.ok) expect(FAILURES[written.failure.code].action).toBe('retry');
        }
      });

      test.each([
        { what: 'the same bytes', other: undefined, becomes: 'success' },
        { what: 'other bytes', other: someBytes(1_000), becomes: 'object-conflict' },
      ])('when its parts are complete, because of $what, ends as $becomes', async ({ other, becomes }) => {
        await using bench = await openBench([EXISTS]);
        const streamed = someBytes(PART_SIZE_BYTES + 1);
        const theirs = other ?? streamed;
        const object = streamedObject(streamed);
        await put(bench, object.key, theirs);
        bench.proxy.arm('CompleteMultipartUpload', EXISTS);
        const { key } = object;
        const etag = await bench.etagAt(key);
        const value = { created: false, etag, stored: { key, etag, metadata: {} } };
        expect(await bench.store.writeStream(object, never)).toMatchObject(
          becomes === 'success' ? { ok: true, value } : { ok: false, failure: { code: becomes } },
        );
        expect((await bench.bytesAt(object.key))?.equals(theirs)).toBe(true);
        expect(await bench.openUploads(object.key)).toEqual([]);
      });
    });

    describe('a store that does not know If-None-Match', () => {
      const UNKNOWN: Fault = { type: 'answer', status: 501, code: 'NotImplemented' };

      test('is written to without it, then and later', async () => {
        await using bench = await openBench([UNKNOWN]);
        bench.proxy.arm(({ headers }) => headers['if-none-match'] !== undefined, UNKNOWN);
        for (const object of [wholeObject(someBytes(10)), wholeObject(someBytes(10))]) {
          expect(await bench.store.write(object, never)).toMatchObject({ ok: true, value: { created: true } });
          expect(await bench.bytesAt(object.key)).toEqual(object.body);
        }
        const asked = bench.proxy.seen.map(({ headers }) => headers['if-none-match']);
        expect(asked).toEqual(['*', undefined, undefined]);
      });

      test('gets what comes in parts without it from the second try on', async () => {
        await using bench = await openBench([UNKNOWN]);
        bench.proxy.arm(({ headers }) => headers['if-none-match'] !== undefined, UNKNOWN);
        const body = someBytes(PART_SIZE_BYTES + 1);
        const first = await bench.store.writeStream(streamedObject(body), never);
        expect(first).toMatchObject({ ok: false });
        if (!first.ok) expect(FAILURES[first.failure.code].action).toBe('retry');
        expect(await bench.openUploads()).toEqual([]);
        const object = streamedObject(body);
        expect(await bench.store.writeStream(object, never)).toMatchObject({ ok: true, value: { created: true } });
        expect((await bench.bytesAt(object.key))?.equals(body)).toBe(true);
      });
    });

    describe('a streamed write that fails half way', () => {
      test('while the whole object lies there from an earlier attempt is no conflict', async () => {
        await using bench = await openBench([SLOW_DOWN]);
        const body = someBytes(4 * PART_SIZE_BYTES);
        const object = streamedObject(body);
        expect(await bench.store.writeStream(object, never)).toMatchObject({ ok: true });
        bench.proxy.arm('UploadPart', SLOW_DOWN);
        const again = streamedObject(body, { key: object.key });
        expect(await bench.store.writeStream(again, never)).toMatchObject({ failure: { code: 'store-busy' } });
        expect((await bench.bytesAt(object.key))?.equals(body)).toBe(true);
      });

      test('is told as the fault of its source, though the upload could not be aborted either', async () => {
        await using bench = await openBench([SLOW_DOWN]);
        const failing = bench.proxy.arm('AbortMultipartUpload', SLOW_DOWN);
        const object = streamedObject(async function* () {
          yield* chunksOf(someBytes(2 * PART_SIZE_BYTES));
          throw new FailureError(failure('body-truncated'));
        });
        expect(await bench.store.writeStream(object, never)).toEqual({
          ok: false,
          failure: { code: 'body-truncated' },
        });
        expect(await bench.bytesAt(object.key)).toBeUndefined();
        failing.disarm();
        expect(await bench.openUploads(object.key)).toHaveLength(1);
        // Asked again, the store says that there is no such upload, as it does when another worker has ended it.
        bench.proxy.arm('AbortMultipartUpload', LOST, 1);
        expect(await bench.store.abandonUploads(object.key, never)).toEqual({ ok: true, value: 1 });
        expect(await bench.openUploads(object.key)).toEqual([]);
      });
    });

    describe('a read that meets', () => {
      test.concurrent.each<Pick<Case, 'what' | 'fault' | 'becomes'>>([
        {
          what: 'an answer that breaks off',
          fault: { type: 'cut-answer', afterBytes: 100 },
          becomes: 'store-unreachable',
        },
        {
          what: 'an answer that stops',
          fault: { type: 'stall-answer', afterBytes: 100 },
          becomes: 'store-unreachable',
        },
        { what: '503', fault: SLOW_DOWN, becomes: 'store-busy' },
        { what: '403', fault: DENIED, becomes: 'store-denied' },
        { what: 'nothing at all', fault: HANG, becomes: 'store-unreachable' },
      ])('$what gives neither a digest nor a document: $becomes', async ({ fault, becomes }) => {
        await using bench = await openBench([fault]);
        const object = wholeObject(Buffer.from(JSON.stringify({ text: 'x'.repeat(5_000) })));
        expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
        bench.proxy.arm('GetObject', fault);
        const missing = { ok: false, failure: { code: becomes } };
        const [digest, document] = await Promise.all([
          bench.store.digest(object.key, never),
          bench.store.readJson(object.key, never),
        ]);
        expect(digest).toMatchObject(missing);
        expect(document).toMatchObject(missing);
      });

      test.concurrent.each<Pick<Case, 'what' | 'fault' | 'becomes'>>([
        { what: '503', fault: SLOW_DOWN, becomes: 'store-busy' },
        { what: '403', fault: DENIED, becomes: 'store-denied' },
        { what: 'an answer lost', fault: LOST, becomes: 'store-unreachable' },
      ])('$what does not take an object for missing: $becomes', async ({ fault, becomes }) => {
        await using bench = await openBench([fault]);
        const object = wholeObject(someBytes(10));
        expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
        const stem = object.key.replace(/\.jpg$/, '');
        const missing = { ok: false, failure: { code: becomes } };
        const heads = bench.proxy.arm('HeadObject', fault);
        expect(await bench.store.head(object.key, never)).toMatchObject(missing);
        expect(await bench.store.find(stem, never)).toMatchObject(missing);
        heads.disarm();
        bench.proxy.arm('ListObjects', fault);
        expect(await bench.store.find(stem, never)).toMatchObject(missing);
        await expect(Array.fromAsync(bench.store.list(stem, never))).rejects.toMatchObject({
          failure: missing.failure,
        });
        bench.proxy.arm('ListMultipartUploads', fault);
        expect(await bench.store.abandonUploads(stem, never)).toMatchObject(missing);
      });

      test('a fault on its second page throws instead of ending early', async () => {
        await using bench = await openBench([SLOW_DOWN]);
        const prefix = `${newKey()}/`;
        for (const name of ['a', 'b', 'c']) {
          expect(await bench.store.write(wholeObject(someBytes(1), { key: prefix + name }), never)).toMatchObject({
            ok: true,
          });
        }
        bench.client.middlewareStack.add(
          (next, { commandName }) =>
            (args) =>
              next(commandName === 'ListObjectsV2Command' ? { ...args, input: { ...args.input, MaxKeys: 2 } } : args),
          { step: 'initialize' },
        );
        bench.proxy.arm(() => bench.proxy.count('ListObjects') > 1, SLOW_DOWN);
        await expect(Array.fromAsync(bench.store.list(prefix, never))).rejects.toMatchObject({
          failure: { code: 'store-busy' },
        });
      });
    });

    test('no failure shows the secret key or the signature', async () => {
      await using bench = await openBench([DENIED]);
      for (const fault of [DENIED, CUT, CORRUPT]) {
        bench.proxy.arm('PutObject', fault);
        const written = await bench.store.write(wholeObject(someBytes(5_000)), never);
        expect(written.ok).toBe(false);
        const text = JSON.stringify(written);
        expect(text).not.toContain(backend.secretAccessKey);
        for (const { headers } of bench.proxy.seen) {
          expect(text).not.toContain(headers['authorization']?.split('Signature=')[1] ?? 'AWS4');
        }
      }
    });
  });
}
