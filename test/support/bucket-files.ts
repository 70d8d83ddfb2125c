import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { S3Client } from '@aws-sdk/client-s3';
import { PutObjectCommand } from '@aws-sdk/client-s3';
import { FailureError, type Result } from '../../src/failure.ts';
import { type BucketFiles, createBucketFiles } from '../../src/store/bucket-files.ts';
import { openStoreBench, PART_SIZE_BYTES, type S3Backend, type StoreBench, type StoreBenchOptions } from './store.ts';

/** Bucket files behind a way on which things can go wrong, and a folder for files. */
export interface FilesBench extends StoreBench {
  readonly files: BucketFiles;
  /** A path in the folder that nothing else uses. */
  newPath(): string;
  /** Writes a file and returns its path. */
  newFile(bytes: Uint8Array): Promise<string>;
  /** The names of what lies in the folder. */
  inFolder(): Promise<string[]>;
  /** Writes an object around the proxy. */
  put(key: string, body: string | Uint8Array, bucket?: string): Promise<void>;
}

export async function openFilesBench(backend: S3Backend, options: StoreBenchOptions = {}): Promise<FilesBench> {
  const bench = await openStoreBench(backend, options);
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-files-'));
  const newPath = (): string => join(folder, crypto.randomUUID());
  return {
    ...bench,
    files: filesOf(bench.client, backend.bucket),
    newPath,
    newFile: async (bytes) => {
      const path = newPath();
      await writeFile(path, bytes);
      return path;
    },
    inFolder: () => readdir(folder),
    put: async (key, body, bucket = backend.bucket) => {
      await bench.direct.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: body }));
    },
    [Symbol.asyncDispose]: async () => {
      await rm(folder, { recursive: true, force: true });
      await bench[Symbol.asyncDispose]();
    },
  };
}

export function filesOf(client: S3Client, bucket: string): BucketFiles {
  return createBucketFiles({ client, bucket, partSizeBytes: PART_SIZE_BYTES });
}

/** A key that no other test uses. */
export function newFileKey(): string {
  return `files/${crypto.randomUUID()}.parquet`;
}

export function succeeded(value?: unknown): { readonly ok: true; readonly value: unknown } {
  return { ok: true, value };
}

/** The value of a result that must be one. */
export function found<T>(result: Result<T>): T {
  if (!result.ok) throw new FailureError(result.failure);
  return result.value;
}

export async function keysOf(listed: AsyncIterable<{ readonly key: string }>): Promise<string[]> {
  return (await Array.fromAsync(listed)).map(({ key }) => key);
}

/** Makes every listing come in pages of this size. */
export function pagesOf(client: S3Client, maxKeys: number): void {
  client.middlewareStack.add(
    (next, { commandName = '' }) =>
      (args) =>
        next(/^ListObject/.test(commandName) ? { ...args, input: { ...args.input, MaxKeys: maxKeys } } : args),
    { step: 'initialize' },
  );
}
