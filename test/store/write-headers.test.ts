import { createHash } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Secret } from '../../src/secret.ts';
import { createS3Client } from '../../src/store/s3-client.ts';
import { createS3Store } from '../../src/store/s3-store.ts';
import type { S3Operation } from '../support/fault-proxy.ts';
import {
  openEmbeddedBackend,
  openStoreBench,
  PART_SIZE_BYTES,
  type S3Backend,
  type StoreBench,
  type StoreBenchOptions,
  sha256Of,
  someBytes,
  streamedObject,
  wholeObject,
} from '../support/store.ts';

const never = new AbortController().signal;

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

function openBench(options: StoreBenchOptions = {}): Promise<StoreBench> {
  return openStoreBench(backend, options);
}

/** The headers of the requests of one kind, in the order of their parts. */
function headersOf({ proxy }: StoreBench, wanted: S3Operation): Readonly<Record<string, string>>[] {
  return proxy.seen
    .filter(({ operation }) => operation === wanted)
    .sort((one, other) => (one.partNumber ?? 0) - (other.partNumber ?? 0))
    .map(({ headers }) => headers);
}

function md5Of(bytes: Uint8Array): string {
  return createHash('md5').update(bytes).digest('base64');
}

/** No chunk signatures, no trailers, no checksum that a store may not know. */
function expectPlain(headers: Readonly<Record<string, string>>, sizeBytes: number): void {
  expect(headers['content-length']).toBe(String(sizeBytes));
  expect(headers).not.toHaveProperty('transfer-encoding');
  expect(headers).not.toHaveProperty('content-encoding');
  expect(headers).not.toHaveProperty('x-amz-trailer');
  expect(headers).not.toHaveProperty('x-amz-decoded-content-length');
  expect(Object.keys(headers).filter((name) => name.startsWith('x-amz-checksum'))).toEqual([]);
  expect(headers).not.toHaveProperty('x-amz-tagging');
}

/** What the signature covers. */
function signedHeaders(headers: Readonly<Record<string, string>>): string[] {
  return /SignedHeaders=([^,]+)/.exec(headers['authorization'] ?? '')?.[1]?.split(';') ?? [];
}

describe.each([
  ['as ever', false],
  ['with Content-MD5, where it is asked for', true],
])('a write %s', (_how, contentMd5) => {
  test.each(
    [0, 1, 70_000].flatMap((sizeBytes) => [
      { sizeBytes, direct: true },
      { sizeBytes, direct: false },
    ]),
  )('of $sizeBytes bytes is one PutObject that is signed with their SHA-256 (direct: $direct)', async (how) => {
    const { sizeBytes, direct } = how;
    await using bench = await openBench({ contentMd5 });
    const { client, proxy } = bench;
    const { bucket } = backend;
    const store = direct ? bench.store : createS3Store({ client, bucket, partSizeBytes: PART_SIZE_BYTES });
    const object = wholeObject(someBytes(sizeBytes));
    expect(await store.write(object, never)).toMatchObject({ ok: true });
    expect(proxy.seen).toHaveLength(1);
    expect(bench.proxy.seen.map(({ operation }) => operation)).toEqual(['PutObject']);
    const [headers = {}] = headersOf(bench, 'PutObject');
    expectPlain(headers, sizeBytes);
    expect(headers['x-amz-content-sha256']).toBe(sha256Of(object.body));
    expect(signedHeaders(headers)).toContain('x-amz-content-sha256');
    expect(headers['if-none-match']).toBe('*');
    expect(headers['content-type']).toBe('image/jpeg');
    expect(headers['content-md5']).toBe(contentMd5 ? md5Of(object.body) : undefined);
  });

  test('in parts is signed with the SHA-256 of each, and all but the last are equally large', async () => {
    await using bench = await openBench({ contentMd5 });
    const body = someBytes(2 * PART_SIZE_BYTES + 777);
    expect(await bench.store.writeStream(streamedObject(body), never)).toMatchObject({ ok: true });
    const sent = headersOf(bench, 'UploadPart');
    const parts = [0, 1, 2].map((part) => body.subarray(part * PART_SIZE_BYTES, (part + 1) * PART_SIZE_BYTES));
    expect(sent).toHaveLength(parts.length);
    for (const [index, part] of parts.entries()) {
      const headers = sent[index] ?? {};
      expectPlain(headers, part.byteLength);
      expect(headers['x-amz-content-sha256']).toBe(sha256Of(part));
      expect(headers['content-md5']).toBe(contentMd5 ? md5Of(part) : undefined);
    }
    expect(headersOf(bench, 'CompleteMultipartUpload')[0]?.['if-none-match']).toBe('*');
  });

  test('of a document is signed with its SHA-256, and replaces what lies there', async () => {
    await using bench = await openBench({ contentMd5 });
    expect(await bench.store.writeJson('document.json', { a: 1 }, never)).toMatchObject({ ok: true });
    const [headers = {}] = headersOf(bench, 'PutObject');
    const text = Buffer.from('{\n  "a": 1\n}\n');
    expectPlain(headers, text.byteLength);
    expect(headers['x-amz-content-sha256']).toBe(sha256Of(text));
    expect(headers['content-md5']).toBe(contentMd5 ? md5Of(text) : undefined);
    expect(headers).not.toHaveProperty('if-none-match');
  });
});

test('a write is tried again with the same hash', async () => {
  await using bench = await openBench();
  bench.proxy.arm('PutObject', { type: 'answer', status: 500, code: 'InternalError' }, 2);
  const object = wholeObject(someBytes(1_000));
  expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
  expect(headersOf(bench, 'PutObject').map((headers) => headers['x-amz-content-sha256'])).toEqual(
    Array.from({ length: 3 }, () => object.digest.sha256),
  );
});

test('a bit that flips on the way is noticed by Content-MD5 alone', async () => {
  await using bench = await openBench({ contentMd5: true, checkPayload: true });
  bench.proxy.arm('PutObject', { type: 'corrupt', atByte: 9 });
  bench.client.middlewareStack.add(
    (next) => (args) => {
      (args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256'] = 'UNSIGNED-PAYLOAD';
      return next(args);
    },
    { step: 'build', priority: 'low' },
  );
  const object = wholeObject(someBytes(1_000));
  const store = createS3Store({ client: bench.client, bucket: backend.bucket, partSizeBytes: PART_SIZE_BYTES });
  expect(await store.write(object, never)).toMatchObject({
    ok: false,
    failure: { code: 'store-corrupted', detail: 'BadDigest' },
  });
  expect(await bench.bytesAt(object.key)).toBeUndefined();
});

describe('over TLS', () => {
  test('the bytes are signed all the same', async () => {
    const client = createS3Client(
      {
        bucket: 'bucket',
        endpoint: 'https://store.invalid',
        partSizeBytes: PART_SIZE_BYTES,
        forcePathStyle: true,
        credentials: { accessKeyId: 'test', secretAccessKey: new Secret('test') },
      },
      1,
    );
    const hashes: (string | undefined)[] = [];
    client.middlewareStack.add(
      () => async (args) => {
        hashes.push((args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256']);
        throw new Error('far enough');
      },
      { step: 'deserialize', priority: 'low' },
    );
    const store = createS3Store({ client, bucket: 'bucket', partSizeBytes: PART_SIZE_BYTES });
    const object = wholeObject(someBytes(1_000));
    expect(await store.write(object, never)).toMatchObject({ ok: false });
    expect(await store.writeJson('document.json', {}, never)).toMatchObject({ ok: false });
    client.destroy();
    // The second is the look at what lies there.
    expect(hashes).toEqual([object.digest.sha256, sha256Of(Buffer.alloc(0)), sha256Of(Buffer.from('{}\n'))]);
  });
});
