import { createHash } from 'node:crypto';
import { DeleteObjectCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { type Failure, FailureError, fail, type Result, succeed } from '../failure.ts';
import {
  type ArchiveStore,
  type Digest,
  foundReceipt,
  type ListedObject,
  type StoredObject,
  type StreamedObject,
  type WholeObject,
  type WriteReceipt,
} from './archive-store.ts';
import { attempt } from './attempt.ts';
import { listObjects } from './list-objects.ts';
import { abandonUploads, uploadInParts } from './multipart-upload.ts';
import { type PutObject, putBySdk } from './put-object.ts';
import { headObject, openObject } from './read-object.ts';
import { classifyStoreError, isConditionUnsupported, isPreconditionFailed, leavesOutcomeOpen } from './s3-errors.ts';

/** A dead letter with a forged history is 6 MB at most; a larger document is not one of ours. */
const MAX_JSON_BYTES = 8 * 1024 * 1024;

export interface S3StoreOptions {
  readonly client: S3Client;
  readonly bucket: string;
  readonly partSizeBytes: number;
  /** How an object in memory is written; by default as the SDK does it. */
  readonly put?: PutObject;
}

/** The archive store on S3. @see ArchiveStore for what callers may rely on. */
export function createS3Store({
  client,
  bucket,
  partSizeBytes,
  put = putBySdk(client, bucket),
}: S3StoreOptions): ArchiveStore {
  /** Turned off for good by the first answer that says the store has no conditional writes. */
  let createOnly = true;

  async function write(object: WholeObject, signal: AbortSignal): Promise<Result<WriteReceipt>> {
    try {
      return succeed(createdReceipt(object.digest, await put(object, createOnly, signal)));
    } catch (error) {
      signal.throwIfAborted();
      if (createOnly && isConditionUnsupported(error)) {
        createOnly = false;
        return write(object, signal);
      }
      return afterFailedWrite(object, object.digest, classifyStoreError(error), signal);
    }
  }

  async function writeStream(object: StreamedObject, signal: AbortSignal): Promise<Result<WriteReceipt>> {
    let ended = false;
    async function* watched(): AsyncIterable<Uint8Array> {
      yield* object.chunks;
      ended = true;
    }
    try {
      const watching = { ...object, chunks: watched() };
      const etag = await uploadInParts(client, bucket, watching, partSizeBytes, createOnly, signal);
      return succeed(createdReceipt(object.digest(), etag ?? (await etagAt(object.key, signal))));
    } catch (error) {
      signal.throwIfAborted();
      // The bytes themselves were bad: nothing was completed, so nothing needs to be looked at.
      if (error instanceof FailureError) return { ok: false, failure: error.failure };
      if (createOnly && isConditionUnsupported(error)) {
        createOnly = false;
        return fail('store-busy', { detail: 'the store has no conditional writes; the next try does without' });
      }
      const reason = classifyStoreError(error);
      // Broken off before its end: there is no digest to compare, and nothing was completed.
      if (!ended) return { ok: false, failure: reason };
      return afterFailedWrite(object, object.digest(), reason, signal);
    }
  }

  /** For stores whose answer to a completed upload has no ETag. What has been written is written, though it be unknown. */
  async function etagAt(key: string, signal: AbortSignal): Promise<string | undefined> {
    const found = await head(key, signal);
    return found.ok ? found.value?.etag : undefined;
  }

  /**
   * Looks at the key after a write that found an object there, or of which nobody knows how it ended.
   *
   * Equal bytes are a success. An object that carries our own `archived-at` is the very write that was interrupted.
   */
  async function afterFailedWrite(
    object: WholeObject | StreamedObject,
    digest: Digest,
    reason: Failure,
    signal: AbortSignal,
  ): Promise<Result<WriteReceipt>> {
    if (!isPreconditionFailed(reason) && !leavesOutcomeOpen(reason)) return { ok: false, failure: reason };
    const found = await head(object.key, signal);
    if (!found.ok) return isPreconditionFailed(reason) ? found : { ok: false, failure: reason };
    if (found.value === undefined) {
      return isPreconditionFailed(reason)
        ? fail('store-busy', { detail: `${object.key} was there and is gone` })
        : { ok: false, failure: reason };
    }

    const { sizeBytes, metadata, etag } = found.value;
    if (sizeBytes !== digest.sizeBytes) return conflict(object.key, digest, sizeBytes);
    if (metadata['archived-at'] === object.metadata['archived-at']) return succeed(createdReceipt(digest, etag));
    if (metadata['sha256'] === undefined) {
      const stored = await readDigest(object.key, signal);
      if (!stored.ok) return stored;
      if (stored.value?.sha256 !== digest.sha256) return conflict(object.key, digest, sizeBytes);
    } else if (metadata['sha256'] !== digest.sha256) {
      return conflict(object.key, digest, sizeBytes);
    }
    return succeed(foundReceipt(digest, found.value));
  }

  function head(key: string, signal: AbortSignal): Promise<Result<StoredObject | undefined>> {
    return attempt(signal, () => headObject(client, bucket, key, signal));
  }

  async function find(stem: string, signal: AbortSignal): Promise<Result<StoredObject | undefined>> {
    const listed = await attempt(signal, async () => {
      for await (const { key } of list(`${stem}.`, signal)) {
        // `<stem>.hd-voice.amr` is another media.
        if (!key.slice(stem.length + 1).includes('.')) return key;
      }
      return undefined;
    });
    if (!listed.ok) return listed;
    return listed.value === undefined ? succeed(undefined) : head(listed.value, signal);
  }

  async function readDigest(key: string, signal: AbortSignal): Promise<Result<Digest | undefined>> {
    return attempt(signal, async () => {
      using object = await openObject(client, bucket, key, signal);
      if (object === undefined) return undefined;
      const hash = createHash('sha256');
      for await (const chunk of object.chunks) hash.update(chunk);
      return { sizeBytes: object.facts.sizeBytes, sha256: hash.digest('hex') };
    });
  }

  async function* list(prefix: string, signal: AbortSignal): AsyncIterable<ListedObject> {
    for await (const { key, sizeBytes } of listObjects(client, bucket, { prefix }, signal)) yield { key, sizeBytes };
  }

  async function readJson(key: string, signal: AbortSignal): Promise<Result<unknown>> {
    return attempt(signal, async () => {
      using object = await openObject(client, bucket, key, signal);
      if (object === undefined) return undefined;
      // Not one of ours, and not worth the memory.
      if (object.facts.sizeBytes > MAX_JSON_BYTES) return null;
      return jsonOf(Buffer.concat(await Array.fromAsync(object.chunks)).toString('utf8'));
    });
  }

  async function writeJson(key: string, document: unknown, signal: AbortSignal): Promise<Result<void>> {
    return attempt(signal, async () => {
      await client.send(
        new PutObjectCommand({
          Bucket: bucket,
          Key: key,
          Body: Buffer.from(`${JSON.stringify(document, null, 2)}\n`),
          ContentType: 'application/json',
        }),
        { abortSignal: signal },
      );
    });
  }

  return {
    write,
    writeStream,
    find,
    head,
    digest: readDigest,
    list,
    remove: (key, signal) =>
      attempt(signal, async () => {
        await client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
      }),
    readJson,
    writeJson,
    abandonUploads: (prefix, signal) => attempt(signal, () => abandonUploads(client, bucket, prefix, signal)),
  };
}

function createdReceipt(digest: Digest, etag: string | undefined): WriteReceipt {
  return { created: true, digest, ...(etag === undefined ? {} : { etag }) };
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function conflict(key: string, ours: Digest, storedBytes: number): Result<never> {
  return fail('object-conflict', {
    detail: `${key} holds ${storedBytes} other bytes; ours are ${ours.sizeBytes} (${ours.sha256})`,
  });
}
