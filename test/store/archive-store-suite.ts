import { AbortMultipartUploadCommand, CreateMultipartUploadCommand, PutObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FailureError, failure } from '../../src/failure.ts';
import { createS3Store } from '../../src/store/s3-store.ts';
import { eventually } from '../support/eventually.ts';
import type { Fault, S3Operation, SeenRequest } from '../support/fault-proxy.ts';
import {
  chunksOf,
  newKey,
  openStoreBench,
  PART_SIZE_BYTES,
  type S3Backend,
  type StoreBench,
  sha256Of,
  someBytes,
  streamedObject,
  wholeObject,
} from '../support/store.ts';
import { ODD_KEYS } from './odd-keys.ts';

const never = new AbortController().signal;

/** What every S3 server must show through the contract in src/store/archive-store.ts. */
export function describeArchiveStore(name: string, open: () => Promise<S3Backend>): void {
  describe(`the archive store on ${name}`, () => {
    let backend: S3Backend;
    let bench: StoreBench;

    beforeAll(async () => {
      backend = await open();
      bench = await openStoreBench(backend);
    });

    afterAll(async () => {
      expect(await bench.openUploads()).toEqual([]);
      await bench[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    });

    describe('a write', () => {
      test.each([0, 1, PART_SIZE_BYTES - 1, PART_SIZE_BYTES])('of %i bytes stores those bytes', async (sizeBytes) => {
        const object = wholeObject(someBytes(sizeBytes));
        const { digest, key } = object;
        const written = await bench.store.write(object, never);
        expect(written).toEqual({ ok: true, value: { created: true, digest, etag: await bench.etagAt(key) } });
        expect(sha256Of((await bench.bytesAt(key)) ?? Buffer.from('nothing'))).toBe(digest.sha256);
        expect(await bench.store.digest(key, never)).toEqual({ ok: true, value: digest });
      });

      test.each([1, PART_SIZE_BYTES, PART_SIZE_BYTES + 1, 2 * PART_SIZE_BYTES, 2 * PART_SIZE_BYTES + 4_321])(
        'of %i bytes that are still arriving stores those bytes',
        async (sizeBytes) => {
          const body = someBytes(sizeBytes);
          const object = streamedObject(() => chunksOf(body, 65_521));
          const digest = { sizeBytes, sha256: sha256Of(body) };
          const written = await bench.store.writeStream(object, never);
          const etag = await bench.etagAt(object.key);
          expect(written).toEqual({ ok: true, value: { created: true, digest, etag } });
          expect(sha256Of((await bench.bytesAt(object.key)) ?? Buffer.from('nothing'))).toBe(digest.sha256);
          expect(await bench.openUploads()).toEqual([]);
        },
      );

      test('keeps the content type and the metadata, whole or streamed', async () => {
        const metadata = {
          'app-id': 'wx0123456789abcdef',
          'media-id': 'A-_1',
          'archived-at': '2026-06-15T12:00:00.000Z',
          'message-id': encodeURIComponent('消息 1'),
          schema: '1',
        };
        const whole = wholeObject(someBytes(3), { metadata, contentType: 'audio/amr' });
        const streamed = streamedObject(someBytes(PART_SIZE_BYTES + 1), { metadata, contentType: 'video/mp4' });
        expect(await bench.store.write(whole, never)).toMatchObject({ ok: true });
        expect(await bench.store.writeStream(streamed, never)).toMatchObject({ ok: true });
        const common = { metadata, etag: expect.stringMatching(/^[^"]+$/), lastModified: expect.any(Number) };
        expect(await bench.store.head(whole.key, never)).toEqual({
          ok: true,
          value: { key: whole.key, sizeBytes: 3, contentType: 'audio/amr', ...common },
        });
        expect(await bench.store.head(streamed.key, never)).toEqual({
          ok: true,
          value: { key: streamed.key, sizeBytes: PART_SIZE_BYTES + 1, contentType: 'video/mp4', ...common },
        });
      });

      test.each(ODD_KEYS)('can be found again at the key %s', async (key) => {
        const object = wholeObject(Buffer.from(key), { key });
        expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
        expect(await bench.store.head(key, never)).toMatchObject({ ok: true, value: { key } });
        expect(await bench.store.digest(key, never)).toEqual({ ok: true, value: object.digest });
        const listed = await Array.fromAsync(bench.store.list(key, never));
        expect(listed).toEqual([{ key, sizeBytes: object.digest.sizeBytes }]);
      });

      test('into a bucket that is not there says so', async () => {
        const store = createS3Store({ client: bench.client, bucket: 'no-such-bucket', partSizeBytes: PART_SIZE_BYTES });
        const missing = { ok: false, failure: { code: 'store-bucket-missing' } };
        expect(await store.write(wholeObject(someBytes(1)), never)).toMatchObject(missing);
        expect(await store.writeStream(streamedObject(someBytes(PART_SIZE_BYTES + 1)), never)).toMatchObject(missing);
        expect(await store.writeJson('document.json', {}, never)).toMatchObject(missing);
        expect(await store.digest('nothing', never)).toMatchObject(missing);
        await expect(Array.fromAsync(store.list('', never))).rejects.toMatchObject({ failure: missing.failure });
      });
    });

    describe('a second write of a key', () => {
      test('with the same bytes is a success, and the store tells whether it was there already', async () => {
        const body = someBytes(1_000);
        const first = wholeObject(body);
        const second = wholeObject(body, { key: first.key });
        expect(await bench.store.write(first, never)).toMatchObject({ value: { created: true } });
        const written = await bench.store.write(second, never);
        const { digest } = first;
        const etag = await bench.etagAt(first.key);
        const stored = { key: first.key, sizeBytes: 1_000, metadata: first.metadata, contentType: 'image/jpeg', etag };
        expect(written).toEqual({
          ok: true,
          value: backend.createOnly
            ? { created: false, digest, etag, stored: { ...stored, lastModified: expect.any(Number) } }
            : { created: true, digest, etag },
        });
        const kept = backend.createOnly ? first : second;
        expect(await bench.store.head(first.key, never)).toMatchObject({ value: { metadata: kept.metadata } });
      });

      test.each([
        ['as many', 1_000],
        ['fewer', 10],
        ['no', 0],
      ])('with other bytes, %s of them, changes nothing where the store is create-only', async (_what, sizeBytes) => {
        const first = wholeObject(someBytes(1_000));
        const second = wholeObject(someBytes(sizeBytes), { key: first.key });
        expect(await bench.store.write(first, never)).toMatchObject({ ok: true });
        const written = await bench.store.write(second, never);
        if (backend.createOnly) {
          expect(written).toMatchObject({ ok: false, failure: { code: 'object-conflict' } });
          expect(JSON.stringify(written)).toContain(first.key);
        } else {
          expect(written).toMatchObject({ ok: true });
        }
        const kept = backend.createOnly ? first : second;
        expect(await bench.bytesAt(first.key)).toEqual(Buffer.from(kept.body));
      });

      test('with bytes that are still arriving says what lies there then', async () => {
        const first = wholeObject(someBytes(1_000));
        const body = someBytes(PART_SIZE_BYTES + 1);
        expect(await bench.store.write(first, never)).toMatchObject({ ok: true });
        const written = await bench.store.writeStream(streamedObject(body, { key: first.key }), never);
        const lies = sha256Of((await bench.bytesAt(first.key)) ?? Buffer.from('nothing'));
        expect(lies).toBe(written.ok ? sha256Of(body) : first.digest.sha256);
        if (!written.ok) expect(written.failure.code).toBe('object-conflict');
        expect(await bench.openUploads()).toEqual([]);
      });

      test('by eight writers at once is a success for each, and creates it once where the store is create-only', async () => {
        const body = someBytes(200_000);
        const key = newKey();
        const written = await Promise.all(
          Array.from({ length: 8 }, () => bench.store.write(wholeObject(body, { key }), never)),
        );
        expect(written.filter(({ ok }) => !ok)).toEqual([]);
        const created = written.filter((result) => result.ok && result.value.created);
        if (backend.createOnly) expect(created).toHaveLength(1);
        expect(await bench.bytesAt(key)).toEqual(body);
      });
    });

    describe('an abort', () => {
      const HANG_BEFORE: Fault = { type: 'hang', where: 'before' };
      const HANG_AFTER: Fault = { type: 'hang', where: 'after' };

      test('before anything has happened sends nothing', async () => {
        await using own = await openStoreBench(backend);
        const reason = new Error('stop');
        const signal = AbortSignal.abort(reason);
        await expect(own.store.write(wholeObject(someBytes(1)), signal)).rejects.toBe(reason);
        const stream = streamedObject(someBytes(PART_SIZE_BYTES + 1));
        await expect(own.store.writeStream(stream, signal)).rejects.toBe(reason);
        await expect(own.store.head('a', signal)).rejects.toBe(reason);
        await expect(own.store.find('a', signal)).rejects.toBe(reason);
        await expect(own.store.digest('a', signal)).rejects.toBe(reason);
        await expect(own.store.readJson('a', signal)).rejects.toBe(reason);
        await expect(own.store.writeJson('a', {}, signal)).rejects.toBe(reason);
        await expect(own.store.abandonUploads('a', signal)).rejects.toBe(reason);
        await expect(Array.fromAsync(own.store.list('a', signal))).rejects.toBe(reason);
        expect(own.proxy.seen).toEqual([]);
      });

      test.each<[string, S3Operation, Fault]>([
        ['while the bytes are sent', 'PutObject', HANG_BEFORE],
        ['while the answer is awaited', 'PutObject', HANG_AFTER],
      ])('%s throws the reason and leaves nothing half done', async (_what, operation, fault) => {
        await using own = await openStoreBench(backend);
        const hung = own.proxy.arm(operation, fault);
        const controller = new AbortController();
        const object = wholeObject(someBytes(PART_SIZE_BYTES));
        const writing = own.store.write(object, controller.signal);
        await eventually(() => (hung.met > 0 ? true : undefined));
        const reason = new Error('stop');
        controller.abort(reason);
        await expect(writing).rejects.toBe(reason);
        expect(await own.bytesAt(object.key)).toSatisfy(
          (bytes: Buffer | undefined) => bytes === undefined || bytes.equals(object.body),
        );
      });

      test.each<[string, S3Operation, Fault]>([
        ['while an upload is begun', 'CreateMultipartUpload', HANG_BEFORE],
        ['when an upload has just been begun', 'CreateMultipartUpload', { type: 'hold-answer' }],
        ['while parts are sent', 'UploadPart', HANG_BEFORE],
        ['while the answers to parts are awaited', 'UploadPart', HANG_AFTER],
        ['while an upload is being completed', 'CompleteMultipartUpload', HANG_BEFORE],
      ])('%s throws the reason and leaves no object and no open upload', async (_what, operation, fault) => {
        await using own = await openStoreBench(backend);
        const armed = own.proxy.arm(operation, fault);
        const controller = new AbortController();
        const object = streamedObject(someBytes(2 * PART_SIZE_BYTES + 1));
        const writing = own.store.writeStream(object, controller.signal);
        await eventually(() => (armed.met > 0 ? true : undefined));
        const reason = new Error('stop');
        controller.abort(reason);
        armed.disarm();
        armed.release();
        await expect(writing).rejects.toBe(reason);
        expect(await own.openUploads()).toEqual([]);
        expect(await own.bytesAt(object.key)).toBeUndefined();
      });

      test('while the source gives nothing throws the reason and leaves no open upload', async () => {
        await using own = await openStoreBench(backend);
        const controller = new AbortController();
        const stalled = Promise.withResolvers<never>();
        const isStoredPart = ({ operation, status }: SeenRequest): boolean =>
          operation === 'UploadPart' && status === 200;
        const object = streamedObject(async function* () {
          yield* chunksOf(someBytes(2 * PART_SIZE_BYTES + 1));
          await stalled.promise;
        });
        const writing = own.store.writeStream(object, controller.signal);
        await eventually(() => (own.proxy.seen.filter(isStoredPart).length === 2 ? true : undefined));
        const reason = new Error('stop');
        controller.abort(reason);
        await expect(writing).rejects.toBe(reason);
        expect(await own.openUploads()).toEqual([]);
        expect(await own.bytesAt(object.key)).toBeUndefined();
      });

      test('after a write leaves what was written', async () => {
        const controller = new AbortController();
        const object = wholeObject(someBytes(10));
        expect(await bench.store.write(object, controller.signal)).toMatchObject({ ok: true });
        controller.abort();
        expect(await bench.store.digest(object.key, never)).toEqual({ ok: true, value: object.digest });
      });
    });

    describe('a source that fails', () => {
      test.each([
        ['at once', 0],
        ['within the first part', PART_SIZE_BYTES / 2],
        ['between parts', PART_SIZE_BYTES],
        ['within the third part', 2 * PART_SIZE_BYTES + 1_000],
        ['after its last byte', 3 * PART_SIZE_BYTES],
      ])('%s leaves no object and no open upload, and its own failure is told', async (_what, sizeBytes) => {
        const truncated = failure('body-truncated', { detail: `${sizeBytes} bytes` });
        const object = streamedObject(async function* () {
          yield* chunksOf(someBytes(sizeBytes));
          throw new FailureError(truncated);
        });
        expect(await bench.store.writeStream(object, never)).toEqual({ ok: false, failure: truncated });
        expect(await bench.bytesAt(object.key)).toBeUndefined();
        expect(await bench.openUploads()).toEqual([]);
      });

      test('with an error that nobody classified is unclassified', async () => {
        const object = streamedObject(async function* () {
          yield* chunksOf(someBytes(PART_SIZE_BYTES + 1));
          throw new Error('a text that may hold anything');
        });
        const written = await bench.store.writeStream(object, never);
        expect(written).toMatchObject({ ok: false, failure: { code: 'unclassified' } });
        expect(JSON.stringify(written)).not.toContain('a text that may hold anything');
        expect(await bench.bytesAt(object.key)).toBeUndefined();
        expect(await bench.openUploads()).toEqual([]);
      });
    });

    test('bytes that are not those of their digest are refused where the store looks', async () => {
      await using own = await openStoreBench(backend, { checkPayload: !backend.checksPayload });
      const body = someBytes(1_000);
      const object = wholeObject(body, { digest: { sizeBytes: 1_000, sha256: sha256Of(someBytes(1_000)) } });
      expect(await own.store.write(object, never)).toMatchObject({ ok: false, failure: { code: 'store-corrupted' } });
      expect(await own.bytesAt(object.key)).toBeUndefined();
    });

    test('a key without an object has no head, no digest and no document', async () => {
      const key = newKey();
      expect(await bench.store.head(key, never)).toEqual({ ok: true, value: undefined });
      expect(await bench.store.digest(key, never)).toEqual({ ok: true, value: undefined });
      expect(await bench.store.readJson(key, never)).toEqual({ ok: true, value: undefined });
      expect(await bench.store.find(key, never)).toEqual({ ok: true, value: undefined });
    });

    describe('find', () => {
      test('finds a media whatever its extension, and nothing that only begins like it', async () => {
        const stem = newKey().replace(/\.jpg$/, '');
        for (const key of [`${stem}.hd-voice.amr`, `${stem}2.jpg`, `${stem}-.jpg`, stem]) {
          expect(await bench.store.write(wholeObject(someBytes(1), { key }), never)).toMatchObject({ ok: true });
        }
        expect(await bench.store.find(stem, never)).toEqual({ ok: true, value: undefined });
        const object = wholeObject(someBytes(2), { key: `${stem}.mp4` });
        expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
        expect(await bench.store.find(stem, never)).toMatchObject({
          ok: true,
          value: { key: object.key, sizeBytes: 2, metadata: object.metadata },
        });
        expect(await bench.store.find(`${stem}.hd-voice`, never)).toMatchObject({
          value: { key: `${stem}.hd-voice.amr` },
        });
      });
    });

    describe('a listing', () => {
      test('goes over pages in key order and stays below its prefix', async () => {
        await using own = await openStoreBench(backend);
        own.client.middlewareStack.add(
          (next, { commandName }) =>
            (args) =>
              next(commandName === 'ListObjectsV2Command' ? { ...args, input: { ...args.input, MaxKeys: 3 } } : args),
          { step: 'initialize' },
        );
        const prefix = `pages-${crypto.randomUUID()}/`;
        const names = ['0', '1', 'a', 'b/c', 'b/d', 'b0', 'c', 'd', 'd0'];
        for (const [index, name] of names.entries()) {
          await bench.direct.send(
            new PutObjectCommand({ Bucket: backend.bucket, Key: prefix + name, Body: Buffer.alloc(index) }),
          );
        }
        await bench.direct.send(
          new PutObjectCommand({ Bucket: backend.bucket, Key: prefix.replace('/', '0'), Body: Buffer.from('x') }),
        );
        expect(await Array.fromAsync(own.store.list(prefix, never))).toEqual(
          names.map((name, index) => ({ key: prefix + name, sizeBytes: index })),
        );
        expect(own.proxy.count('ListObjects')).toBe(3);
      });

      test('of nothing is empty', async () => {
        expect(await Array.fromAsync(bench.store.list(`nothing-${crypto.randomUUID()}/`, never))).toEqual([]);
      });
    });

    describe('a document', () => {
      test('comes back as it was written last', async () => {
        const key = `documents/${crypto.randomUUID()}.json`;
        const document = { text: '媒体 "quoted" \u2028', list: [1, null, true], nested: { empty: {} } };
        expect(await bench.store.writeJson(key, { old: true }, never)).toEqual({ ok: true, value: undefined });
        expect(await bench.store.writeJson(key, document, never)).toEqual({ ok: true, value: undefined });
        expect(await bench.store.readJson(key, never)).toEqual({ ok: true, value: document });
        expect(await bench.store.head(key, never)).toMatchObject({ value: { contentType: 'application/json' } });
      });

      test('that is no JSON is null, which no written document is taken for', async () => {
        const key = `documents/${crypto.randomUUID()}.json`;
        for (const text of ['', '{"half":', '<html>']) {
          await bench.direct.send(new PutObjectCommand({ Bucket: backend.bucket, Key: key, Body: Buffer.from(text) }));
          expect(await bench.store.readJson(key, never)).toEqual({ ok: true, value: null });
        }
      });

      test('beyond 8 MiB is none of ours, and is not held', async () => {
        const key = `documents/${crypto.randomUUID()}.json`;
        const body = Buffer.from(JSON.stringify('x'.repeat(8 * 1024 * 1024)));
        await bench.direct.send(new PutObjectCommand({ Bucket: backend.bucket, Key: key, Body: body }));
        expect(await bench.store.readJson(key, never)).toEqual({ ok: true, value: null });
      });
    });

    test('open uploads below a prefix are aborted, page by page, and no others', async () => {
      await using own = await openStoreBench(backend);
      own.client.middlewareStack.add(
        (next, { commandName }) =>
          (args) =>
            next(
              commandName === 'ListMultipartUploadsCommand'
                ? { ...args, input: { ...args.input, MaxUploads: 1 } }
                : args,
            ),
        { step: 'initialize' },
      );
      const prefix = newKey();
      const begin = async (key: string): Promise<{ Bucket: string; Key: string; UploadId: string | undefined }> => {
        const place = { Bucket: backend.bucket, Key: key };
        const { UploadId } = await own.direct.send(new CreateMultipartUploadCommand(place));
        return { ...place, UploadId };
      };
      const elsewhere = await begin(newKey());
      const here = [await begin(`${prefix}.mp4`), await begin(`${prefix}.mp4`), await begin(`${prefix}.hd-voice.amr`)];
      expect(await own.store.abandonUploads(`${prefix}.`, never)).toEqual({
        ok: true,
        value: backend.listsUploads ? here.length : 0,
      });
      expect(await own.openUploads()).toEqual(backend.listsUploads ? [elsewhere.Key] : []);
      await own.direct.send(new AbortMultipartUploadCommand(elsewhere));
    });
  });
}
