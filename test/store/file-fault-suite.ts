import { readFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { BucketFiles } from '../../src/store/bucket-files.ts';
import { type FilesBench, filesOf, found, newFileKey, openFilesBench, succeeded } from '../support/bucket-files.ts';
import { eventually } from '../support/eventually.ts';
import type { Fault } from '../support/fault-proxy.ts';
import { PART_SIZE_BYTES, type S3Backend, someBytes } from '../support/store.ts';

const never = new AbortController().signal;

const DENIED: Fault = { type: 'answer', status: 403, code: 'AccessDenied' };
const SLOW_DOWN: Fault = { type: 'answer', status: 503, code: 'SlowDown' };
const HANG: Fault = { type: 'hang', where: 'before' };
const IMPATIENT = { connectMs: 5_000, idleMs: 3_000, responseMs: 3_000 };

/** What bucket files make of faults on the way to a server, of the disk, and of an abort. */
export function describeFileFaults(name: string, open: () => Promise<S3Backend>): void {
  describe(`bucket files on a bad way to ${name}`, () => {
    let backend: S3Backend;
    let bench: FilesBench;
    let files: BucketFiles;

    beforeAll(async () => {
      backend = await open();
      bench = await openFilesBench(backend);
      files = bench.files;
    });

    afterEach(async () => {
      expect(await bench.openUploads()).toEqual([]);
      expect((await bench.inFolder()).filter((file) => file.endsWith('.part'))).toEqual([]);
    });

    afterAll(async () => {
      await bench[Symbol.asyncDispose]();
      await backend[Symbol.asyncDispose]();
    });

    describe('a download', () => {
      test.each<[string, Fault]>([
        ['breaks off', { type: 'cut-answer', afterBytes: 1_000 }],
        ['stops', { type: 'stall-answer', afterBytes: 1_000 }],
      ])('that %s gives no bytes, no file, and leaves the one that was there', async (_what, fault) => {
        await using own = await openFilesBench(backend, { timeouts: IMPATIENT });
        const key = newFileKey();
        await bench.put(key, someBytes(300_000));
        own.proxy.arm('GetObject', fault);
        const [fresh, old] = [bench.newPath(), await bench.newFile(Buffer.from('old'))];
        const missing = { ok: false, failure: { code: 'store-unreachable' } };
        const [toFresh, toOld, bytes, opened] = await Promise.all([
          own.files.getFile(key, fresh, never),
          own.files.getFile(key, old, never),
          own.files.getBytes(key, 300_000, never),
          own.files.open(key, never),
        ]);
        expect(toFresh).toMatchObject(missing);
        expect(toOld).toMatchObject(missing);
        expect(bytes).toMatchObject(missing);
        // Whatever has happened to it by now, it is told here and nowhere else.
        await expect(Array.fromAsync(found(opened)?.chunks ?? [])).rejects.toMatchObject({
          failure: missing.failure,
        });
        await expect(readFile(fresh)).rejects.toMatchObject({ code: 'ENOENT' });
        expect(await readFile(old, 'utf8')).toBe('old');
        expect((await bench.inFolder()).filter((file) => file.endsWith('.part'))).toEqual([]);
      });

      test('of fewer bytes than were announced is a failure, though nothing broke off', async () => {
        await using own = await openFilesBench(backend);
        own.client.middlewareStack.add(
          (next) => async (args) => {
            const result = await next(args);
            const { headers } = result.response as { headers: Record<string, string> };
            headers['content-length'] = String(Number(headers['content-length']) + 1);
            return result;
          },
          { step: 'deserialize', priority: 'low' },
        );
        const key = newFileKey();
        const path = bench.newPath();
        await bench.put(key, someBytes(1_000));
        const missing = { ok: false, failure: { code: 'store-unreachable', detail: '1000 of 1001 bytes came' } };
        expect(await own.files.getFile(key, path, never)).toMatchObject(missing);
        expect(await own.files.getBytes(key, 2_000, never)).toMatchObject(missing);
        await expect(readFile(path)).rejects.toMatchObject({ code: 'ENOENT' });
      });

      test('whose length nobody announced is a failure', async () => {
        await using own = await openFilesBench(backend);
        const key = newFileKey();
        await bench.put(key, someBytes(1_000));
        own.proxy.arm('GetObject', { type: 'replace-answer', body: 'half of it' });
        const missing = { ok: false, failure: { code: 'store-refused' } };
        expect(await own.files.getFile(key, bench.newPath(), never)).toMatchObject(missing);
        expect(await own.files.getBytes(key, 2_000, never)).toMatchObject(missing);
      });
    });

    describe('an upload that fails', () => {
      test.each<[string, number, Fault, string]>([
        ['with 403', 1_000, DENIED, 'store-denied'],
        ['with 503 for ever', 1_000, SLOW_DOWN, 'store-busy'],
        ['with 403 in parts', 2 * PART_SIZE_BYTES, DENIED, 'store-denied'],
        ['with 503 for ever in parts', 2 * PART_SIZE_BYTES, SLOW_DOWN, 'store-busy'],
        ['in a cut connection', 300_000, { type: 'cut-request', afterBytes: 1_000 }, 'store-unreachable'],
      ])('%s leaves what lay at the key', async (_what, sizeBytes, fault, code) => {
        await using own = await openFilesBench(backend);
        const key = newFileKey();
        await bench.put(key, 'old');
        own.proxy.arm(({ operation }) => operation === 'PutObject' || operation === 'UploadPart', fault);
        const path = await bench.newFile(someBytes(sizeBytes));
        expect(await own.files.putFile(key, path, 'a/b', never)).toMatchObject({ ok: false, failure: { code } });
        expect(await bench.bytesAt(key)).toEqual(Buffer.from('old'));
        expect(await own.openUploads()).toEqual([]);
      });

      test.each([1_000, PART_SIZE_BYTES + 1])('once is done within the call, with %i bytes', async (sizeBytes) => {
        await using own = await openFilesBench(backend);
        const key = newFileKey();
        const bytes = someBytes(sizeBytes);
        own.proxy.arm(() => true, SLOW_DOWN, 1);
        expect(await own.files.putFile(key, await bench.newFile(bytes), 'a/b', never)).toEqual(succeeded());
        expect((await bench.bytesAt(key))?.equals(bytes)).toBe(true);
      });

      test('because of the disk says so, as does a download', async () => {
        const key = newFileKey();
        await bench.put(key, 'old');
        const failed = { ok: false, failure: { code: 'unclassified', detail: 'ENOENT' } };
        expect(await files.putFile(key, bench.newPath(), 'a/b', never)).toEqual(failed);
        expect(await files.getFile(key, join(bench.newPath(), 'file'), never)).toEqual(failed);
        expect(await bench.bytesAt(key)).toEqual(Buffer.from('old'));
      });
    });

    test('a bucket that is not there is told as such', async () => {
      const nowhere = filesOf(bench.client, 'no-such-bucket');
      const path = await bench.newFile(someBytes(PART_SIZE_BYTES + 1));
      const missing = { ok: false, failure: { code: 'store-bucket-missing' } };
      expect(await nowhere.putFile('a', path, 'a/b', never)).toMatchObject(missing);
      expect(await nowhere.putBytes('a', someBytes(1), 'a/b', never)).toMatchObject(missing);
      expect(await nowhere.getFile('a', bench.newPath(), never)).toMatchObject(missing);
      expect(await nowhere.getBytes('a', 1, never)).toMatchObject(missing);
      expect(await nowhere.open('a', never)).toMatchObject(missing);
      expect(await nowhere.removeVersions('a', never)).toMatchObject(missing);
      for (const listed of [nowhere.list('', never), nowhere.folders('', never), nowhere.versions('', never)]) {
        await expect(Array.fromAsync<unknown>(listed)).rejects.toMatchObject({ failure: missing.failure });
      }
    });

    describe('an abort', () => {
      test('before anything has happened sends nothing', async () => {
        await using own = await openFilesBench(backend);
        const reason = new Error('stop');
        const signal = AbortSignal.abort(reason);
        const path = await bench.newFile(someBytes(PART_SIZE_BYTES + 1));
        await expect(own.files.putFile('a', path, 'a/b', signal)).rejects.toBe(reason);
        await expect(own.files.putBytes('a', someBytes(1), 'a/b', signal)).rejects.toBe(reason);
        await expect(own.files.getFile('a', bench.newPath(), signal)).rejects.toBe(reason);
        await expect(own.files.getBytes('a', 1, signal)).rejects.toBe(reason);
        await expect(own.files.open('a', signal)).rejects.toBe(reason);
        await expect(own.files.head('a', signal)).rejects.toBe(reason);
        await expect(own.files.remove('a', signal)).rejects.toBe(reason);
        await expect(own.files.removeVersions('a', signal)).rejects.toBe(reason);
        for (const listed of [
          own.files.list('', signal),
          own.files.folders('', signal),
          own.files.versions('', signal),
        ]) {
          await expect(Array.fromAsync<unknown>(listed)).rejects.toBe(reason);
        }
        expect(own.proxy.seen).toEqual([]);
      });

      test.each([
        ['PutObject', 1_000],
        ['UploadPart', PART_SIZE_BYTES + 1],
        ['CompleteMultipartUpload', PART_SIZE_BYTES + 1],
      ] as const)('while a file is put, at %s, throws the reason and leaves nothing', async (operation, sizeBytes) => {
        await using own = await openFilesBench(backend);
        const hung = own.proxy.arm(operation, HANG);
        const controller = new AbortController();
        const key = newFileKey();
        const putting = own.files.putFile(key, await bench.newFile(someBytes(sizeBytes)), 'a/b', controller.signal);
        await eventually(() => (hung.met > 0 ? true : undefined));
        const reason = new Error('stop');
        controller.abort(reason);
        await expect(putting).rejects.toBe(reason);
        expect(await bench.bytesAt(key)).toBeUndefined();
        expect(await own.openUploads()).toEqual([]);
      });

      test('while bytes are awaited throws the reason and leaves no file', async () => {
        await using own = await openFilesBench(backend);
        const key = newFileKey();
        await bench.put(key, someBytes(300_000));
        own.proxy.arm('GetObject', { type: 'stall-answer', afterBytes: 1_000 });
        const controller = new AbortController();
        const path = bench.newPath();
        const opened = found(await own.files.open(key, controller.signal));
        const reading = Array.fromAsync(opened?.chunks ?? []);
        const getting = own.files.getFile(key, path, controller.signal);
        const failing = Promise.allSettled([reading, getting]);
        await eventually(async () => ((await bench.inFolder()).includes(`${basename(path)}.part`) ? true : undefined));
        const reason = new Error('stop');
        controller.abort(reason);
        expect(await failing).toEqual([
          { status: 'rejected', reason },
          { status: 'rejected', reason },
        ]);
        await expect(readFile(path)).rejects.toMatchObject({ code: 'ENOENT' });
      });

      test('while a list is awaited throws the reason', async () => {
        await using own = await openFilesBench(backend);
        const hung = own.proxy.arm(() => true, HANG);
        const controller = new AbortController();
        const listed = Promise.allSettled([
          Array.fromAsync(own.files.list('a', controller.signal)),
          Array.fromAsync(own.files.folders('a', controller.signal)),
          Array.fromAsync(own.files.versions('a', controller.signal)),
          own.files.removeVersions('a', controller.signal),
        ]);
        await eventually(() => (hung.met === 4 ? true : undefined));
        const reason = new Error('stop');
        controller.abort(reason);
        for (const result of await listed) expect(result).toEqual({ status: 'rejected', reason });
      });
    });
  });
}
