import { fork } from 'node:child_process';
import { once } from 'node:events';
import { open as openFile, readFile, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import {
  CreateBucketCommand,
  DeleteObjectCommand,
  PutBucketVersioningCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { BucketFiles } from '../../src/store/bucket-files.ts';
import {
  type FilesBench,
  filesOf,
  found,
  keysOf,
  newFileKey,
  openFilesBench,
  pagesOf,
  succeeded,
} from '../support/bucket-files.ts';
import type { Fault, SeenRequest } from '../support/fault-proxy.ts';
import type { MoveFile } from '../support/move-file.ts';
import { clientOf, PART_SIZE_BYTES, type S3Backend, sha256Of, someBytes } from '../support/store.ts';
import { ODD_KEYS } from './odd-keys.ts';

const never = new AbortController().signal;

const DENIED: Fault = { type: 'answer', status: 403, code: 'AccessDenied' };
const SLOW_DOWN: Fault = { type: 'answer', status: 503, code: 'SlowDown' };
const IMPATIENT = { connectMs: 5_000, idleMs: 3_000, responseMs: 3_000 };
const asksForVersions = ({ query }: SeenRequest): boolean => 'versions' in query;

/** What every S3 server must show through the contract in src/store/bucket-files.ts. */
export function describeBucketFiles(name: string, open: () => Promise<S3Backend>): void {
  describe(`bucket files on ${name}`, () => {
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

    describe('a file', () => {
      test.each([0, 1, PART_SIZE_BYTES, PART_SIZE_BYTES + 1, 2 * PART_SIZE_BYTES + 4_321])(
        'of %i bytes comes back as it was put',
        async (sizeBytes) => {
          const bytes = someBytes(sizeBytes);
          const key = newFileKey();
          expect(await files.putFile(key, await bench.newFile(bytes), 'application/x-parquet', never)).toEqual(
            succeeded(),
          );
          expect(sha256Of((await bench.bytesAt(key)) ?? Buffer.from('nothing'))).toBe(sha256Of(bytes));
          const path = bench.newPath();
          expect(await files.getFile(key, path, never)).toEqual(succeeded(true));
          expect((await readFile(path)).equals(bytes)).toBe(true);
          expect(await files.head(key, never)).toEqual(
            succeeded({
              key,
              sizeBytes,
              contentType: 'application/x-parquet',
              metadata: {},
              etag: await bench.etagAt(key),
              lastModified: expect.any(Number),
            }),
          );
        },
      );

      test.each([
        ['a smaller one', 2 * PART_SIZE_BYTES, 10],
        ['one in parts', 10, PART_SIZE_BYTES + 1],
        ['an empty one', 10, 0],
      ])('is overwritten by %s', async (_what, before, after) => {
        const key = newFileKey();
        const bytes = someBytes(after);
        expect(await files.putFile(key, await bench.newFile(someBytes(before)), 'a/b', never)).toEqual(succeeded());
        expect(await files.putFile(key, await bench.newFile(bytes), 'c/d', never)).toEqual(succeeded());
        expect((await bench.bytesAt(key))?.equals(bytes)).toBe(true);
        expect(await files.head(key, never)).toMatchObject(succeeded({ contentType: 'c/d' }));
      });

      test('takes the place of what lies at its path, and of what an interrupted download left', async () => {
        const key = newFileKey();
        const path = await bench.newFile(someBytes(5_000));
        await writeFile(`${path}.part`, someBytes(9_000));
        await bench.put(key, 'new');
        expect(await files.getFile(key, path, never)).toEqual(succeeded(true));
        expect(await readFile(path, 'utf8')).toBe('new');
      });

      test('takes as much memory as a tenth of it', async () => {
        const small = await peakOf(3 * PART_SIZE_BYTES);
        const large = await peakOf(30 * PART_SIZE_BYTES);
        expect(large - small).toBeLessThan(9 * PART_SIZE_BYTES);
      });

      /** The most memory that a process had which put a file of this size and got it. */
      async function peakOf(sizeBytes: number): Promise<number> {
        const from = bench.newPath();
        const file = await openFile(from, 'w');
        await file.truncate(sizeBytes);
        await file.close();
        const { endpoint, bucket, accessKeyId, secretAccessKey } = backend;
        const place = { endpoint, bucket, accessKeyId, secretAccessKey, partSizeBytes: PART_SIZE_BYTES };
        const child = fork(fileURLToPath(new URL('../support/move-file.ts', import.meta.url)));
        child.send({ ...place, key: newFileKey(), from, to: `${from}.back` } satisfies MoveFile);
        const [{ results, peakBytes }] = await once(child, 'message');
        expect(results).toEqual([succeeded(), succeeded(true)]);
        return peakBytes;
      }
    });

    describe('bytes', () => {
      test.each([0, 1, 300_000])('%i of them come back as they were put', async (sizeBytes) => {
        const bytes = someBytes(sizeBytes);
        const key = newFileKey();
        expect(await files.putBytes(key, someBytes(7), 'a/b', never)).toEqual(succeeded());
        expect(await files.putBytes(key, bytes, 'application/gzip', never)).toEqual(succeeded());
        expect(await files.getBytes(key, sizeBytes, never)).toEqual(succeeded(bytes));
        expect(await files.head(key, never)).toMatchObject(succeeded({ sizeBytes, contentType: 'application/gzip' }));
      });

      test('more than expected are none of ours', async () => {
        const key = newFileKey();
        await bench.put(key, someBytes(1_001));
        const got = await files.getBytes(key, 1_000, never);
        expect(got).toMatchObject({ ok: false, failure: { code: 'object-conflict' } });
        expect(JSON.stringify(got)).toContain(key);
      });
    });

    describe('an open object', () => {
      test('has the facts of a HEAD and all its bytes', async () => {
        const key = newFileKey();
        const bytes = someBytes(2 * PART_SIZE_BYTES);
        await bench.put(key, bytes);
        const opened = found(await files.open(key, never));
        expect(opened?.facts).toEqual(found(await files.head(key, never)));
        expect(Buffer.concat(await Array.fromAsync(opened?.chunks ?? [])).equals(bytes)).toBe(true);
      });

      test('that is not read to its end holds no connection', async () => {
        await using own = await openFilesBench(backend, { timeouts: IMPATIENT });
        const key = newFileKey();
        await bench.put(key, someBytes(2 * PART_SIZE_BYTES));
        // More than the client has sockets.
        for (let left = 20; left > 0; left -= 1) {
          expect(await own.files.getBytes(key, 1, never)).toMatchObject({ failure: { code: 'object-conflict' } });
          expect(await own.files.getFile(key, join(bench.newPath(), 'file'), never)).toMatchObject({
            ok: false,
          });
          using unread = found(await own.files.open(key, never));
          expect(unread).toBeDefined();
          for await (const _ of found(await own.files.open(key, never))?.chunks ?? []) break;
        }
      });
    });

    describe('a key without an object', () => {
      test('is told as such, and no file is made or taken away', async () => {
        const key = newFileKey();
        const path = bench.newPath();
        expect(await files.head(key, never)).toEqual(succeeded());
        expect(await files.open(key, never)).toEqual(succeeded());
        expect(await files.getBytes(key, 10, never)).toEqual(succeeded());
        expect(await files.getFile(key, path, never)).toEqual(succeeded(false));
        expect(await bench.inFolder()).not.toContain(basename(path));
        await writeFile(path, 'kept');
        expect(await files.getFile(key, path, never)).toEqual(succeeded(false));
        expect(await readFile(path, 'utf8')).toBe('kept');
      });

      test('can be removed', async () => {
        expect(await files.remove(newFileKey(), never)).toEqual(succeeded());
        expect(await files.removeVersions(newFileKey(), never)).toEqual(succeeded(0));
      });
    });

    test.each(ODD_KEYS)('the key %s is taken as it is', async (odd) => {
      const key = `files/${odd}`;
      const bytes = Buffer.from(key);
      expect(await files.putBytes(key, bytes, 'a/b', never)).toEqual(succeeded());
      expect(await files.getBytes(key, 1_000, never)).toEqual(succeeded(bytes));
      expect(await keysOf(files.list(key, never))).toEqual([key]);
      expect(await keysOf(files.versions(key, never))).toEqual([key]);
      const end = key.lastIndexOf('/') + 1;
      expect(await Array.fromAsync(files.folders(key.slice(0, end - 1), never))).toContain(key.slice(0, end));
      expect(await files.removeVersions(key, never)).toEqual(succeeded(1));
      expect(await bench.bytesAt(key)).toBeUndefined();
    });

    describe('a listing', () => {
      const COUNT = 1_005;
      const prefix = `many-${crypto.randomUUID()}/`;
      const keys = Array.from({ length: COUNT }, (_, index) => `${prefix}${String(index).padStart(5, '0')}`);

      beforeAll(async () => {
        for (let from = 0; from < COUNT; from += 15) {
          await Promise.all(keys.slice(from, from + 15).map((key) => bench.put(key, key.slice(-2))));
        }
        await bench.put(prefix.replace('/', '0'), 'behind the prefix');
        await bench.put(prefix.replace('/', '.'), 'before the prefix');
      });

      test('goes over pages in key order, and tells each object as it is', async () => {
        const listed = await Array.fromAsync(files.list(prefix, never));
        expect(listed.map(({ key }) => key)).toEqual(keys);
        const key = keys[1_003] ?? '';
        expect(listed[1_003]).toEqual({
          key,
          sizeBytes: 2,
          etag: await bench.etagAt(key),
          lastModified: expect.any(Number),
        });
        const { lastModified = 0 } = found(await files.head(key, never)) ?? {};
        expect(Math.floor((listed[1_003]?.lastModified ?? 0) / 1_000)).toBe(lastModified / 1_000);
      });

      test('begins behind a key, whether it is there or not', async () => {
        for (const [after, first] of [
          [keys[2], 3],
          [`${keys[2]}-`, 3],
          [keys[1_002], 1_003],
          [prefix, 0],
          [keys.at(-1), COUNT],
        ] as const) {
          const listed = await keysOf(files.list(prefix, never, { after: after ?? '' }));
          expect(listed).toEqual(keys.slice(first));
        }
      });

      test('asks for a page only when it is needed', async () => {
        await using own = await openFilesBench(backend);
        const listed: string[] = [];
        for await (const { key } of own.files.list(prefix, never)) {
          listed.push(key);
          if (listed.length === 1_000) break;
        }
        expect(listed).toEqual(keys.slice(0, 1_000));
        expect(own.proxy.count('ListObjects')).toBe(1);
      });

      test('of nothing is empty', async () => {
        const nothing = `nothing-${crypto.randomUUID()}/`;
        expect(await keysOf(files.list(nothing, never))).toEqual([]);
        expect(await keysOf(files.versions(nothing, never))).toEqual([]);
        expect(await Array.fromAsync(files.folders(nothing, never))).toEqual([]);
      });

      test('of versions goes over pages too', async () => {
        expect((await keysOf(files.versions(prefix, never))).sort()).toEqual(keys);
      });

      test('of folders goes over pages and tells each of them once', async () => {
        await using own = await openFilesBench(backend);
        pagesOf(own.client, 2);
        const place = `folders-${crypto.randomUUID()}/`;
        const names = ['a/1', 'a/2/3', 'a0/1', 'app=wx1/dt=1/x', 'app=wx1/dt=2/x', 'b/1', 'c/d', 'z'];
        for (const each of names) await bench.put(place + each, 'x');
        expect(await Array.fromAsync(own.files.folders(place, never))).toEqual(
          ['a/', 'a0/', 'app=wx1/', 'b/', 'c/'].map((each) => place + each),
        );
        expect(await Array.fromAsync(own.files.folders(`${place}app=wx1/`, never))).toEqual(
          ['dt=1/', 'dt=2/'].map((each) => `${place}app=wx1/${each}`),
        );
      });

      test.each<[string, Fault, string]>([
        ['503', SLOW_DOWN, 'store-busy'],
        ['403', DENIED, 'store-denied'],
        [
          'a page that is cut short and does not say how to go on',
          {
            type: 'answer',
            status: 200,
            body: '<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>',
          },
          'store-refused',
        ],
      ])('that meets %s throws instead of ending early', async (_what, fault, code) => {
        await using own = await openFilesBench(backend);
        own.proxy.arm(
          ({ operation, key, query }) => operation === 'ListObjects' || (key === '' && 'versions' in query),
          {
            ...fault,
          },
        );
        for (const listed of [
          own.files.list('a', never),
          own.files.folders('a', never),
          own.files.versions('a', never),
        ]) {
          await expect(Array.fromAsync<unknown>(listed)).rejects.toMatchObject({ failure: { code } });
        }
      });
    });

    describe('a removal', () => {
      test('of one key leaves those that begin like it', async () => {
        const key = newFileKey();
        const others = [`${key}.`, `${key}/x`, `${key}0`, key.slice(0, -1)];
        for (const each of [key, ...others]) await bench.put(each, each);
        expect(await files.removeVersions(key, never)).toEqual(succeeded(1));
        expect(await bench.bytesAt(key)).toBeUndefined();
        expect(await files.removeVersions(key, never)).toEqual(succeeded(0));
        for (const each of others) expect(await bench.bytesAt(each)).toEqual(Buffer.from(each));
        await bench.put(key, 'again');
        expect(await files.remove(key, never)).toEqual(succeeded());
        expect(await bench.bytesAt(key)).toBeUndefined();
        for (const each of others) expect(await bench.bytesAt(each)).toEqual(Buffer.from(each));
      });

      test.each<[string, Fault]>([
        ['501', { type: 'answer', status: 501, code: 'NotImplemented' }],
        ['405', { type: 'answer', status: 405, code: 'MethodNotAllowed' }],
        [
          'a plain listing',
          {
            type: 'answer',
            status: 200,
            body: '<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>',
          },
        ],
      ])('where a store answers %s to a question about versions removes the object', async (_what, fault) => {
        await using own = await openFilesBench(backend);
        own.proxy.arm(asksForVersions, fault);
        const key = newFileKey();
        await bench.put(key, 'x');
        expect(await Array.fromAsync(own.files.versions(key, never))).toEqual([
          { key, isDeleteMarker: false, isLatest: true },
        ]);
        expect(await own.files.removeVersions(key, never)).toEqual(succeeded(1));
        expect(await own.files.removeVersions(key, never)).toEqual(succeeded(0));
        expect(await bench.bytesAt(key)).toBeUndefined();
      });

      test.each<[string, Fault, string]>([
        ['may not be listed', DENIED, 'store-denied'],
        ['can not be listed now', SLOW_DOWN, 'store-busy'],
      ])('of versions that %s is a failure, and removes nothing', async (_what, fault, code) => {
        await using own = await openFilesBench(backend);
        own.proxy.arm(asksForVersions, fault);
        const key = newFileKey();
        await bench.put(key, 'x');
        expect(await own.files.removeVersions(key, never)).toMatchObject({ ok: false, failure: { code } });
        await expect(Array.fromAsync(own.files.versions(key, never))).rejects.toMatchObject({ failure: { code } });
        expect(await bench.bytesAt(key)).toEqual(Buffer.from('x'));
      });

      test('of what the store only says it removes is a failure', async () => {
        await using own = await openFilesBench(backend);
        const key = newFileKey();
        const version = `<Version><Key>${key}</Key><VersionId>v1</VersionId></Version>`;
        own.proxy.arm(asksForVersions, {
          type: 'answer',
          status: 200,
          body: `<ListVersionsResult><IsTruncated>false</IsTruncated>${version}</ListVersionsResult>`,
        });
        own.proxy.arm('DeleteObject', { type: 'answer', status: 204, body: '' });
        expect(await own.files.removeVersions(key, never)).toMatchObject({
          ok: false,
          failure: { code: 'store-busy' },
        });
      });
    });

    describe('in a bucket with versions', () => {
      let bucket: string;
      let client: S3Client;
      let versioned: BucketFiles;

      beforeAll(async () => {
        if (!backend.keepsVersions) return;
        bucket = `versions-${crypto.randomUUID()}`;
        client = clientOf(backend);
        pagesOf(client, 3);
        versioned = filesOf(client, bucket);
        await bench.direct.send(new CreateBucketCommand({ Bucket: bucket }));
      });

      afterAll(() => client?.destroy());

      /** Two versions, a delete marker, another version, and one from before there were any: five in all. */
      async function fiveVersions(key: string): Promise<void> {
        const keepVersions = (Status: 'Enabled' | 'Suspended'): Promise<unknown> =>
          bench.direct.send(new PutBucketVersioningCommand({ Bucket: bucket, VersioningConfiguration: { Status } }));
        await keepVersions('Suspended');
        await bench.put(key, 'unversioned', bucket);
        await keepVersions('Enabled');
        await bench.put(key, 'one', bucket);
        await bench.put(key, 'two', bucket);
        await bench.direct.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }));
        await bench.put(key, 'three', bucket);
      }

      test('every version and delete marker is listed, and removed with its key and no other', async (context) => {
        if (!backend.keepsVersions) return context.skip('this server keeps no versions');
        const key = newFileKey();
        const others = [`${key}.x`, `${key}/y`];
        for (const each of [key, ...others]) await fiveVersions(each);
        const listed = await Array.fromAsync(versioned.versions(key, never));
        expect(listed).toHaveLength(15);
        expect(listed.filter(({ isDeleteMarker }) => isDeleteMarker)).toHaveLength(3);
        expect(new Set(listed.map((version) => `${version.key} ${version.versionId}`)).size).toBe(15);
        expect(listed.filter(({ versionId }) => versionId === undefined)).toEqual([]);

        expect(await versioned.removeVersions(key, never)).toEqual(succeeded(5));
        expect(await versioned.removeVersions(key, never)).toEqual(succeeded(0));
        const left = await keysOf(versioned.versions(key, never));
        expect(left.toSorted()).toEqual(others.flatMap((each) => Array<string>(5).fill(each)));
        expect(await versioned.getBytes(others[0] ?? '', 100, never)).toEqual(succeeded(Buffer.from('three')));
      });

      test('a delete marker is all that a plain removal adds', async (context) => {
        if (!backend.keepsVersions) return context.skip('this server keeps no versions');
        const key = newFileKey();
        await fiveVersions(key);
        expect(await versioned.remove(key, never)).toEqual(succeeded());
        expect(await versioned.head(key, never)).toEqual(succeeded());
        expect(await versioned.getBytes(key, 100, never)).toEqual(succeeded());
        expect(await keysOf(versioned.list(key, never))).toEqual([]);
        expect(await keysOf(versioned.versions(key, never))).toHaveLength(6);
        expect(await versioned.removeVersions(key, never)).toEqual(succeeded(6));
      });

      test('what a listing has just told may be removed while it goes on', async (context) => {
        if (!backend.keepsVersions) return context.skip('this server keeps no versions');
        const prefix = `${newFileKey()}/`;
        const keys = ['a', 'b', 'c', 'd'].map((each) => prefix + each);
        for (const each of keys) await fiveVersions(each);
        let removed = 0;
        for await (const { key } of versioned.versions(prefix, never)) {
          removed += found(await versioned.removeVersions(key, never)) ?? 0;
        }
        expect(removed).toBe(20);
        expect(await keysOf(versioned.versions(prefix, never))).toEqual([]);
      });
    });
  });
}
