import { mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { DeleteObjectCommand } from '@aws-sdk/client-s3';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { partitionOfKey, replacementKey } from '../../src/catalog/catalog-keys.ts';
import { copyCatalog, type LocalCopy } from '../../src/catalog/local-copy.ts';
import { localFiles } from '../../src/catalog/local-files.ts';
import type { Scope } from '../../src/catalog/scope.ts';
import { TABLE_NAMES } from '../../src/catalog/table.ts';
import { type FilesBench, openFilesBench } from '../support/bucket-files.ts';
import { openEmbeddedBackend, type S3Backend } from '../support/store.ts';

const never = new AbortController().signal;
const DAY_MS = 86_400_000;
const [ONE, OTHER] = ['wx0123456789abcdef', 'wxfedcba9876543210'];
const ALL: Scope = { tables: TABLE_NAMES };
const KEYS = [
  `catalog/media/dt=2026-06-14/app=${ONE}/a.parquet`,
  `catalog/media/dt=2026-06-15/app=${ONE}/b.parquet`,
  `catalog/media/dt=2026-06-15/app=${OTHER}/c.parquet`,
  `catalog/dead-letters/dt=2026-06-15/app=${ONE}/letters.parquet`,
  'catalog/accepted/dt=2026-06-15/d.parquet',
] as const;

let backend: S3Backend;
let bench: FilesBench;
let folder: string;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
  bench = await openFilesBench(backend);
});

afterAll(async () => {
  await bench[Symbol.asyncDispose]();
  await backend[Symbol.asyncDispose]();
});

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-copy-'));
  for await (const { key } of bench.files.list('', never)) await remove(key);
  for (const key of KEYS) await bench.put(key, `bytes of ${key}`);
});

afterEach(() => rm(folder, { recursive: true, force: true }));

async function remove(key: string): Promise<void> {
  await bench.direct.send(new DeleteObjectCommand({ Bucket: backend.bucket, Key: key }));
}

function copy(scope: Scope = ALL, signal = never): Promise<LocalCopy> {
  return copyCatalog(bench.files, scope, folder, signal);
}

/** What lies in the folder, by the key in the bucket that each file stands for. */
async function contents(): Promise<Record<string, string>> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const read = files.map(async (path) => [
    relative(folder, path).replace(/\.[^./]+\.parquet$/, '.parquet'),
    await readFile(path, 'utf8'),
  ]);
  return Object.fromEntries(await Promise.all(read));
}

function bytesOf(...keys: readonly string[]): Record<string, string> {
  return Object.fromEntries(keys.map((key) => [key, `bytes of ${key}`]));
}

test('brings every file, whole, and tells where each table lies', async () => {
  const { files, downloaded, removed } = await copy();
  expect(await contents()).toEqual(bytesOf(...KEYS));
  expect({ downloaded: downloaded.files, removed }).toEqual({ downloaded: 5, removed: 0 });
  expect(Object.fromEntries(Object.entries(files).map(([table, paths]) => [table, paths.length]))).toEqual({
    media: 3,
    'dead-letters': 1,
    accepted: 1,
    derived: 0,
  });
  for (const path of Object.values(files).flat()) expect((await stat(path)).isFile()).toBe(true);
});

test('brings again only what is new, what has changed and what is spoilt, and takes away what is gone', async () => {
  await copy();
  expect(await copy()).toMatchObject({ downloaded: { files: 0, bytes: 0 }, removed: 0 });

  await remove(KEYS[0]);
  await bench.put(KEYS[3], 'another state of the letters');
  await bench.put(`${dirname(KEYS[1])}/e.parquet`, 'new');
  const spoilt = (await readdir(join(folder, dirname(KEYS[2]))))[0] ?? '';
  await truncate(join(folder, dirname(KEYS[2]), spoilt), 3);
  expect(await copy()).toMatchObject({ downloaded: { files: 3 }, removed: 2 });
  expect(await contents()).toEqual({
    ...bytesOf(KEYS[1], KEYS[2], KEYS[4]),
    [KEYS[3]]: 'another state of the letters',
    [`${dirname(KEYS[1])}/e.parquet`]: 'new',
  });
});

test('a change that keeps the length is seen', async () => {
  await copy();
  await bench.put(KEYS[3], `BYTES OF ${KEYS[3]}`);
  expect(await copy()).toMatchObject({ downloaded: { files: 1 }, removed: 1 });
  expect((await contents())[KEYS[3]]).toBe(`BYTES OF ${KEYS[3]}`);
});

const SCOPES: readonly [Scope, readonly string[]][] = [
  [{ tables: ['media'] }, [KEYS[0], KEYS[1], KEYS[2]]],
  [{ tables: ['media'], since: '2026-06-15' }, [KEYS[1], KEYS[2]]],
  [{ tables: ['media'], until: '2026-06-14' }, [KEYS[0]]],
  [{ tables: ['media'], since: '2026-06-15', until: '2026-06-15', app: OTHER }, [KEYS[2]]],
  [{ tables: ['media', 'accepted'], app: OTHER }, [KEYS[2], KEYS[4]]],
  [{ tables: ['derived'] }, []],
  [{ tables: [] }, []],
];

describe.each(SCOPES)('of %j', (scope, keys) => {
  test('it brings that alone, and leaves what is beyond it', async () => {
    await copy(scope);
    expect(await contents()).toEqual(bytesOf(...keys));
    await copy();
    for (const key of KEYS) await remove(key);
    await copy(scope);
    expect(await contents()).toEqual(bytesOf(...KEYS.filter((key) => !keys.includes(key))));
  });

  test('a copy that others have made gives the same files', async () => {
    for (const key of KEYS) {
      await mkdir(join(folder, dirname(key)), { recursive: true });
      await writeFile(join(folder, key), '');
    }
    const expected = keys.map((key) => join(folder, key)).toSorted();
    for (const root of [folder, join(folder, 'catalog')])
      expect(
        Object.values((await localFiles(root, scope)) ?? {})
          .flat()
          .toSorted(),
      ).toEqual(expected);
    await copy();
    await rm(join(folder, 'catalog/media'), { recursive: true, force: true });
    expect((await localFiles(folder, { tables: ['media'] }))?.media).toEqual([]);
  });
});

test('files that are being replaced are there once', async () => {
  const partition = partitionOfKey(KEYS[1]);
  if (partition === undefined) throw new Error('no partition');
  const merged = `${dirname(KEYS[1])}/merged-x-0.parquet`;
  const note = JSON.stringify({ v: 1, sources: [KEYS[1]], targets: [merged] });
  await bench.put(replacementKey(partition), note);
  await bench.put(merged, `bytes of ${merged}`);
  await copy({ tables: ['media'] });
  expect(await contents()).toEqual(bytesOf(KEYS[0], KEYS[1], KEYS[2]));
  await remove(KEYS[1]);
  await copy({ tables: ['media'] });
  expect(await contents()).toEqual(bytesOf(KEYS[0], KEYS[2], merged));

  // As a plain copy of the bucket would have it.
  const plain = join(folder, 'plain');
  for (const [key, body] of [
    [KEYS[1], ''],
    [merged, ''],
    [replacementKey(partition), note],
  ] as const) {
    await mkdir(join(plain, dirname(key)), { recursive: true });
    await writeFile(join(plain, key), body);
  }
  expect((await localFiles(plain, { tables: ['media'] }))?.media).toEqual([join(plain, KEYS[1])]);
  await rm(join(plain, KEYS[1]));
  expect((await localFiles(plain, { tables: ['media'] }))?.media).toEqual([join(plain, merged)]);
});

test('a file that goes while it is copied is made up for by what has taken its place', async () => {
  const merged = `${dirname(KEYS[1])}/merged-x-0.parquet`;
  let isDone = false;
  const files = {
    ...bench.files,
    getFile: async (...args: Parameters<typeof bench.files.getFile>) => {
      if (!isDone && args[0] === KEYS[1]) {
        isDone = true;
        await bench.put(merged, `bytes of ${merged}`);
        await remove(KEYS[1]);
      }
      return bench.files.getFile(...args);
    },
  };
  await copyCatalog(files, { tables: ['media'] }, folder, never);
  expect(await contents()).toEqual(bytesOf(KEYS[0], KEYS[2], merged));
});

test('broken off at any file, it leaves whole files alone, and the next run brings the rest', async () => {
  for (let at = 0; at < KEYS.length; at += 1) {
    await rm(join(folder, 'catalog'), { recursive: true, force: true });
    const stop = new AbortController();
    let count = 0;
    const files = {
      ...bench.files,
      getFile: async (...args: Parameters<typeof bench.files.getFile>) => {
        if (count++ === at) stop.abort(new Error('enough'));
        return bench.files.getFile(...args);
      },
    };
    await expect(copyCatalog(files, ALL, folder, stop.signal)).rejects.toThrow('enough');
    for (const [key, body] of Object.entries(await contents())) expect(body).toBe(`bytes of ${key}`);
    expect((await readdir(folder)).filter((name) => name !== 'catalog')).toEqual([]);
    await copy();
    expect(await contents()).toEqual(bytesOf(...KEYS));
  }
});

test.each([
  [{ type: 'answer', status: 403, code: 'AccessDenied' }, 'store-denied'],
  [{ type: 'cut-answer', afterBytes: 5 }, 'store-unreachable'],
] as const)('what the store does (%j) is told as %s, and no half file is left', async (what, code) => {
  const fault = bench.proxy.arm('GetObject', what);
  try {
    await expect(copy()).rejects.toMatchObject({ failure: { code } });
    expect(fault.met).toBeGreaterThan(0);
  } finally {
    fault.disarm();
  }
  expect(await contents()).toEqual({});
  await copy();
  expect(await contents()).toEqual(bytesOf(...KEYS));
});

test('two runs on one folder at a time both end well', async () => {
  const large = Buffer.alloc(4 * 1024 * 1024, 'x');
  for (const key of KEYS) await bench.put(key, large);
  const runs = await Promise.all([copy(), copy(), copy()]);
  for (const { files } of runs) {
    for (const path of Object.values(files).flat()) expect((await stat(path)).size).toBe(large.length);
  }
  expect((await readdir(folder)).filter((name) => name !== 'catalog')).toEqual([]);
});

test('what a killed run has left is removed after a day, and not before', async () => {
  const [old, young] = [join(folder, '.incoming-old'), join(folder, '.incoming-young')];
  for (const path of [old, young]) await mkdir(path);
  await utimes(old, new Date(Date.now() - 2 * DAY_MS), new Date(Date.now() - 2 * DAY_MS));
  await copy();
  expect((await readdir(folder)).toSorted()).toEqual(['.incoming-young', 'catalog']);
});

test('a folder that holds no catalog is told from an empty one', async () => {
  expect(await localFiles(folder, ALL)).toBeUndefined();
  expect(await localFiles(join(folder, 'none'), ALL)).toBeUndefined();
  await mkdir(join(folder, 'media'));
  expect(await localFiles(folder, ALL)).toEqual({ media: [], 'dead-letters': [], accepted: [], derived: [] });
});
