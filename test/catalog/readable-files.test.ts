import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DeleteObjectCommand } from '@aws-sdk/client-s3';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { partitionPrefix, partKey, replacementKey } from '../../src/catalog/catalog-keys.ts';
import { dayAfter } from '../../src/catalog/days.ts';
import { downloadRows } from '../../src/catalog/manifest-rows.ts';
import { readableFiles } from '../../src/catalog/readable-files.ts';
import { type FilesBench, openFilesBench, pagesOf } from '../support/bucket-files.ts';
import { openEmbeddedBackend, type S3Backend } from '../support/store.ts';

const never = new AbortController().signal;
const APP = 'wx0123456789abcdef';
const everything = () => true;

let backend: S3Backend;
let bench: FilesBench;
let dt = '2026-01-01';
/** Called before each request of the reader. */
let beforeRequest: () => Promise<void> = async () => undefined;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
  bench = await openFilesBench(backend);
  // A partition is listed in several requests.
  pagesOf(bench.client, 2);
  let last: Promise<void> = Promise.resolve();
  bench.client.middlewareStack.add(
    (next) => async (args) => {
      // One after the other, also of requests that are sent at once.
      last = last.then(() => beforeRequest());
      await last;
      return next(args);
    },
    { step: 'finalizeRequest', priority: 'high' },
  );
});

afterAll(async () => {
  await bench[Symbol.asyncDispose]();
  await backend[Symbol.asyncDispose]();
});

async function remove(key: string): Promise<void> {
  await bench.direct.send(new DeleteObjectCommand({ Bucket: backend.bucket, Key: key }));
}

/** A partition of its own, three files that are to be replaced by two, and one that stays. */
async function openPartition() {
  dt = dayAfter(dt);
  const partition = { table: 'media', dt, app: APP } as const;
  const prefix = partitionPrefix(partition);
  // One of the old files comes behind the new ones in a listing.
  const sources = [partKey(partition, '1-0', '2-0'), partKey(partition, '3-0', '4-0'), `${prefix}merged-zz-0.parquet`];
  const targets = [`${prefix}merged-aa-0.parquet`, `${prefix}merged-aa-1.parquet`];
  const kept = partKey(partition, '5-0', '6-0');
  for (const key of [...sources, kept]) await bench.put(key, key);
  const note = replacementKey(partition);
  const steps = [
    () => bench.put(note, JSON.stringify({ v: 1, sources, targets })),
    ...targets.map((key) => () => bench.put(key, key)),
    ...sources.map((key) => () => remove(key)),
    () => remove(note),
  ];
  return { prefix, sources, targets, kept, note, steps };
}

/** What is done before which request of the reader. */
const moments = fc.array(fc.nat(14), { minLength: 7, maxLength: 7 }).map((all) => all.toSorted((a, b) => a - b));

test.each([
  [
    'a listing',
    async (prefix: string) => (await readableFiles(bench.files, prefix, everything, never)).map(({ key }) => key),
  ],
  [
    'a download',
    async (prefix: string) => {
      const folder = await mkdtemp(join(tmpdir(), 'weixin-media-rows-'));
      try {
        const paths = await downloadRows(bench.files, prefix, folder, everything, never);
        return paths.map((path) => path.slice(folder.length + 1).replaceAll('__', '/'));
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  ],
])(
  '%s has each row once, whenever files are replaced',
  async (_, read) => {
    await fc.assert(
      fc.asyncProperty(moments, async (at) => {
        const { prefix, sources, targets, kept, steps } = await openPartition();
        let [request, step] = [0, 0];
        beforeRequest = async () => {
          for (; step < steps.length && (at[step] ?? 0) <= request; step += 1) await steps[step]?.();
          request += 1;
        };
        try {
          const keys = (await read(prefix)).toSorted();
          const shown = keys.includes(targets[0] ?? '') ? targets : sources;
          expect(keys).toEqual([...shown, kept].toSorted());
        } finally {
          beforeRequest = async () => undefined;
          for (; step < steps.length; step += 1) await steps[step]?.();
        }
      }),
      { numRuns: 150, seed: 5 },
    );
  },
  120_000,
);

test('what a crash has left between the steps is read as one of the two', async () => {
  const { prefix, sources, targets, kept, steps } = await openPartition();
  for (const [index, step] of steps.entries()) {
    await step();
    const keys = (await readableFiles(bench.files, prefix, everything, never)).map(({ key }) => key).toSorted();
    // The old files, until the first of them is removed.
    expect(keys).toEqual([...(index < 3 ? sources : targets), kept].toSorted());
  }
});

test('what a flush adds meanwhile does not make it wait', async () => {
  const { prefix, sources, kept } = await openPartition();
  const partition = { table: 'media', dt, app: APP } as const;
  let request = 0;
  beforeRequest = async () => {
    request += 1;
    await bench.put(partKey(partition, `${100 + request}-0`, `${100 + request}-1`), 'x');
  };
  const keys = (await readableFiles(bench.files, prefix, everything, never)).map(({ key }) => key);
  beforeRequest = async () => undefined;
  expect(keys).toEqual(expect.arrayContaining([...sources, kept]));
  expect(request).toBeLessThan(40);
});

test('files that are replaced without end are told as a busy store', async () => {
  const { prefix } = await openPartition();
  let count = 0;
  beforeRequest = async () => {
    await remove(`${prefix}merged-${count}.parquet`);
    count += 1;
    await bench.put(`${prefix}merged-${count}.parquet`, 'x');
  };
  await expect(readableFiles(bench.files, prefix, everything, never)).rejects.toMatchObject({
    failure: { code: 'store-busy' },
  });
  beforeRequest = async () => undefined;
});
