import { createReadStream } from 'node:fs';
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { DeleteObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { FailureError, failure, type Result } from '../failure.ts';
import type { StoredObject } from './archive-store.ts';
import { attempt } from './attempt.ts';
import { type BucketObject, listFolders, listObjects } from './list-objects.ts';
import { uploadInParts } from './multipart-upload.ts';
import { listVersions, type ObjectVersion, removeVersions } from './object-versions.ts';
import { headObject, type OpenObject, openObject } from './read-object.ts';

export type { BucketObject, ObjectVersion, OpenObject };

/**
 * Whole files and the whole bucket, for what is not archiving: the catalog, manifests, fixity, erasure. `ArchiveStore`
 * never overwrites; this does.
 *
 * Callers may rely on this:
 * - Nothing is visible at a key before all its bytes have arrived. An overwriting put is one step: a reader gets the old
 *   bytes or the new, and repeating it is harmless.
 * - The AWS SDK retries short-lived faults within the call; nothing else does. Every other fault is returned as a failure
 *   with a `store-` code, or thrown as a `FailureError` by what is iterated. After a failure of a put or a removal it may
 *   have been carried out all the same: do it again.
 * - A fault of the disk is `unclassified`, with its code (`ENOSPC`) as detail.
 * - An aborted `signal` makes a call throw the signal's reason, soon.
 * - Memory does not grow with the size of a file, nor with how much is listed: `PARTS_HELD` parts for a put, a page of
 *   1,000 keys for a listing.
 */
export interface BucketFiles {
  /** Uploads a file from disk, overwriting. Larger than a part it goes in parts, 10,000 at most. */
  putFile(
    key: string,
    path: string,
    contentType: string,
    signal: AbortSignal,
    metadata?: Readonly<Record<string, string>>,
  ): Promise<Result<void>>;
  /** Writes bytes, overwriting; in one request, so they should be few. */
  putBytes(key: string, bytes: Uint8Array, contentType: string, signal: AbortSignal): Promise<Result<void>>;

  /**
   * Downloads an object to a path in a folder that is there; false, and no file, when there is none. The bytes go to
   * `<path>.part`, which becomes `path` once all that were announced have come and is removed otherwise; a crash leaves
   * it for the next call to overwrite. Not to be called for one path twice at a time.
   */
  getFile(key: string, path: string, signal: AbortSignal): Promise<Result<boolean>>;
  /** Reads a small object; `undefined` when there is none. One larger than `maxBytes` is `object-conflict`: none of ours. */
  getBytes(key: string, maxBytes: number, signal: AbortSignal): Promise<Result<Uint8Array | undefined>>;
  /** Begins to read an object of any size; `undefined` when there is none. See `OpenObject` for what the caller owes it. */
  open(key: string, signal: AbortSignal): Promise<Result<OpenObject | undefined>>;
  head(key: string, signal: AbortSignal): Promise<Result<StoredObject | undefined>>;

  /** Lists in key order, a page at a time. @param options.after only keys behind this one. @throws FailureError */
  list(prefix: string, signal: AbortSignal, options?: { readonly after?: string }): AsyncIterable<BucketObject>;
  /**
   * Lists the "folders" directly below a prefix, in key order, as prefixes that end in "/".
   *
   * @param prefix ends in "/", or is empty; otherwise the folders that begin like it are listed.
   * @throws FailureError
   */
  folders(prefix: string, signal: AbortSignal): AsyncIterable<string>;

  /** Removes an object. Harmless when there is none. In a bucket with versions its bytes stay, below a delete marker. */
  remove(key: string, signal: AbortSignal): Promise<Result<void>>;
  /**
   * Removes every version and delete marker of exactly this key, or the object where a store has no versions, and returns
   * how many there were. What fails halfway has removed some of them: do it again.
   */
  removeVersions(key: string, signal: AbortSignal): Promise<Result<number>>;
  /**
   * Lists every version and delete marker below a prefix, in key order from page to page but not within one; the objects
   * where a store has no versions. @throws FailureError
   */
  versions(prefix: string, signal: AbortSignal): AsyncIterable<ObjectVersion>;
}

export interface BucketFilesOptions {
  readonly client: S3Client;
  readonly bucket: string;
  readonly partSizeBytes: number;
}

/** Bucket files on S3. @see BucketFiles for what callers may rely on. */
export function createBucketFiles({ client, bucket, partSizeBytes }: BucketFilesOptions): BucketFiles {
  async function put(
    key: string,
    bytes: Uint8Array,
    contentType: string,
    signal: AbortSignal,
    metadata: Readonly<Record<string, string>> = {},
  ): Promise<void> {
    const input = { Bucket: bucket, Key: key, Body: bytes, ContentType: contentType, Metadata: { ...metadata } };
    await client.send(new PutObjectCommand(input), { abortSignal: signal });
  }

  return {
    putFile: (key, path, contentType, signal, metadata = {}) =>
      attempt(signal, async () => {
        const { size } = await stat(path);
        if (size <= partSizeBytes) return put(key, await readFile(path, { signal }), contentType, signal, metadata);
        const object = { key, contentType, metadata, chunks: bytesOf(path) };
        await uploadInParts(client, bucket, object, partSizeBytes, false, signal);
      }),

    putBytes: (key, bytes, contentType, signal) => attempt(signal, () => put(key, bytes, contentType, signal)),

    getFile: (key, path, signal) =>
      attempt(signal, async () => {
        using object = await openObject(client, bucket, key, signal);
        if (object === undefined) return false;
        const part = `${path}.part`;
        try {
          await writeFile(part, object.chunks);
          await rename(part, path);
        } catch (error) {
          await rm(part, { force: true });
          throw error;
        }
        return true;
      }),

    getBytes: (key, maxBytes, signal) =>
      attempt(signal, async () => {
        using object = await openObject(client, bucket, key, signal);
        if (object === undefined) return undefined;
        const { sizeBytes } = object.facts;
        if (sizeBytes > maxBytes) {
          const detail = `${key} holds ${sizeBytes} bytes, more than ${maxBytes}`;
          throw new FailureError(failure('object-conflict', { detail }));
        }
        return Buffer.concat(await Array.fromAsync(object.chunks));
      }),

    open: (key, signal) => attempt(signal, () => openObject(client, bucket, key, signal)),
    head: (key, signal) => attempt(signal, () => headObject(client, bucket, key, signal)),

    list: (prefix, signal, { after } = {}) => listObjects(client, bucket, { prefix, after }, signal),
    folders: (prefix, signal) => listFolders(client, bucket, prefix, signal),

    remove: (key, signal) =>
      attempt(signal, async () => {
        await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
      }),
    removeVersions: (key, signal) => attempt(signal, () => removeVersions(client, bucket, key, signal)),
    versions: (prefix, signal) => listVersions(client, bucket, prefix, signal),
  };
}

/** Opened only when it is read, so that nothing is left open by an upload that never begins. */
async function* bytesOf(path: string): AsyncIterable<Uint8Array> {
  yield* createReadStream(path);
}
