import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { failure } from '../../src/failure.ts';
import type { ArchiveStore } from '../../src/store/archive-store.ts';
import { readBackStore } from '../../src/store/read-back.ts';
import {
  newKey,
  openEmbeddedBackend,
  openStoreBench,
  PART_SIZE_BYTES,
  type S3Backend,
  type StoreBench,
  someBytes,
  streamedObject,
  wholeObject,
} from '../support/store.ts';

const never = new AbortController().signal;
const FLIP = { type: 'corrupt', atByte: 100 } as const;

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

/** A store that looks, on a server that never does. */
async function openBench(isNeeded = true): Promise<{ bench: StoreBench; store: ArchiveStore }> {
  const bench = await openStoreBench(backend);
  return { bench, store: readBackStore(bench.store, () => isNeeded) };
}

/** A store that overwrites nothing, which this server is not: what lies at a key is in the way, whatever it is. */
function inTheWay(store: ArchiveStore): ArchiveStore {
  const writeStream: ArchiveStore['writeStream'] = async ({ chunks }) => {
    for await (const _ of chunks);
    return { ok: false, failure: failure('object-conflict') };
  };
  return readBackStore({ ...store, writeStream }, () => true);
}

describe('an object that arrives with a flipped bit', () => {
  test('is written anew, and lies there as it should', async () => {
    const { bench, store } = await openBench();
    await using _ = bench;
    const object = wholeObject(someBytes(2_000));
    bench.proxy.arm('PutObject', FLIP, 2);
    expect(await store.write(object, never)).toMatchObject({ ok: true });
    expect(await bench.bytesAt(object.key)).toEqual(object.body);
  });

  test('is written anew from memory that nobody may use again meanwhile', async () => {
    for (const isNeeded of [true, false]) {
      const { bench, store } = await openBench(isNeeded);
      await using _ = bench;
      let released = 0;
      const onReleased = (): void => {
        released += 1;
      };
      bench.proxy.arm('PutObject', FLIP, isNeeded ? 1 : 0);
      expect(await store.write(wholeObject(someBytes(2_000), { onReleased }), never)).toMatchObject({ ok: true });
      expect(released).toBe(isNeeded ? 0 : 1);
    }
  });

  test('each time is a failure in the end, and nothing stays at its key', async () => {
    const { bench, store } = await openBench();
    await using _ = bench;
    const object = wholeObject(someBytes(2_000));
    bench.proxy.arm('PutObject', FLIP);
    expect(await store.write(object, never)).toMatchObject({ ok: false, failure: { code: 'store-corrupted' } });
    expect(await bench.bytesAt(object.key)).toBeUndefined();
  });

  test('in parts is a failure, and nothing stays at its key', async () => {
    const { bench, store } = await openBench();
    await using _ = bench;
    const object = streamedObject(someBytes(PART_SIZE_BYTES + 1_000));
    bench.proxy.arm('UploadPart', FLIP, 1);
    expect(await store.writeStream(object, never)).toMatchObject({ ok: false, failure: { code: 'store-corrupted' } });
    expect(await bench.bytesAt(object.key)).toBeUndefined();
    expect(bench.proxy.openUploads()).toEqual([]);
  });

  test('by a worker that died before it looked is not found by the next', async () => {
    const { bench, store } = await openBench();
    await using _ = bench;
    const object = wholeObject(someBytes(2_000), { key: newKey() });
    bench.proxy.arm('PutObject', FLIP, 1);
    expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
    expect(await store.find(object.key.slice(0, -'.jpg'.length), never)).toEqual({ ok: true, value: undefined });
    expect(await bench.bytesAt(object.key)).toBeUndefined();
  });

  test('in parts by a worker that died before it looked is not found by the next, which stores it anew', async () => {
    const { bench, store } = await openBench();
    await using _ = bench;
    const bytes = someBytes(PART_SIZE_BYTES + 1_000);
    const object = streamedObject(bytes, { key: newKey() });
    bench.proxy.arm('UploadPart', FLIP, 1);
    expect(await bench.store.writeStream(object, never)).toMatchObject({ ok: true });
    expect(await store.find(object.key.slice(0, -'.jpg'.length), never)).toEqual({ ok: true, value: undefined });
    const again = (): typeof object => streamedObject(bytes, { key: object.key });
    expect(await inTheWay(bench.store).writeStream(again(), never)).toMatchObject({
      ok: false,
      failure: { code: 'store-corrupted' },
    });
    expect(await bench.bytesAt(object.key)).toBeUndefined();
    expect(await store.writeStream(again(), never)).toMatchObject({ ok: true });
    expect((await bench.bytesAt(object.key))?.equals(bytes)).toBe(true);
  });

  test('only as it was read is left where it lies', async () => {
    const { bench, store } = await openBench();
    await using _ = bench;
    const bytes = someBytes(PART_SIZE_BYTES + 1_000);
    const object = streamedObject(bytes, { key: newKey() });
    expect(await store.writeStream(object, never)).toMatchObject({ ok: true });
    const again = streamedObject(bytes, { key: object.key });
    const etag = await bench.etagAt(object.key);
    expect(await inTheWay(bench.store).writeStream(again, never)).toMatchObject({
      ok: true,
      value: { created: false, etag, stored: { key: object.key, metadata: object.metadata, etag } },
    });
    expect((await bench.bytesAt(object.key))?.equals(bytes)).toBe(true);
  });

  test('and was removed by another worker meanwhile is written anew later', async () => {
    const { bench } = await openBench();
    await using _ = bench;
    const object = streamedObject(someBytes(PART_SIZE_BYTES + 1_000), { key: newKey() });
    expect(await inTheWay(bench.store).writeStream(object, never)).toMatchObject({
      ok: false,
      failure: { code: 'store-busy' },
    });
  });

  test('that can not be removed is told so', async () => {
    const { bench, store } = await openBench();
    await using _ = bench;
    const object = wholeObject(someBytes(2_000));
    bench.proxy.arm('PutObject', FLIP);
    bench.proxy.arm('DeleteObject', { type: 'answer', status: 403, code: 'AccessDenied' });
    expect(await store.write(object, never)).toMatchObject({
      ok: false,
      failure: { code: 'store-corrupted', detail: expect.stringContaining('could not be removed') },
    });
  });
});

describe('an object that arrives whole', () => {
  test.each([true, false])('is stored, and found; read back: %s', async (isNeeded) => {
    const { bench, store } = await openBench(isNeeded);
    await using _ = bench;
    const object = wholeObject(someBytes(2_000));
    const streamed = streamedObject(someBytes(PART_SIZE_BYTES + 1_000));
    expect(await store.write(object, never)).toMatchObject({ ok: true, value: { created: true } });
    expect(await store.writeStream(streamed, never)).toMatchObject({ ok: true });
    expect(await store.find(object.key.slice(0, -'.jpg'.length), never)).toMatchObject({ value: { key: object.key } });
    expect(bench.proxy.count('GetObject')).toBe(isNeeded ? 3 : 0);
  });
});
