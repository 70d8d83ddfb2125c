import type { Failure, Result } from '../failure.ts';

/**
 * Memory that a streamed write holds, in parts: two on the wire, the one that fills up, and the copy that lib-storage
 * makes when it cuts a part.
 */
export const PARTS_HELD = 4;

/** What identifies the bytes of an object. */
export interface Digest {
  readonly sizeBytes: number;
  /** 64 lower-case hexadecimal digits. */
  readonly sha256: string;
}

interface NewObject {
  readonly key: string;
  readonly contentType: string;
  /** ASCII only, 2 KB at most in all. Must hold `archived-at`, by which an interrupted write is recognised. */
  readonly metadata: Readonly<Record<string, string>>;
}

/** An object whose bytes are all in memory. */
export interface WholeObject extends NewObject {
  readonly body: Uint8Array;
  readonly digest: Digest;
  /** Called when no socket can still have the body in hand. Where one may, it is not called, however well the write ended. */
  readonly onReleased?: () => void;
}

/** An object whose bytes are still arriving; larger than a part. */
export interface StreamedObject extends NewObject {
  /** Throws (a `FailureError` where the cause is known) when the bytes must not be stored. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** What has come through `chunks`; asked once they have ended. */
  readonly digest: () => Digest;
}

export interface WriteReceipt {
  /** False when an object with the same bytes lay there already. */
  readonly created: boolean;
  readonly digest: Digest;
  /** Of the object at the key, without quotes. Absent where the store did not tell. */
  readonly etag?: string;
  /** There exactly when not `created`: what lies at the key, with the metadata of whoever put it there. */
  readonly stored?: StoredObject;
}

/** The receipt of a write that found its bytes there already. */
export function foundReceipt(digest: Digest, stored: StoredObject): WriteReceipt {
  return { created: false, digest, stored, ...(stored.etag === undefined ? {} : { etag: stored.etag }) };
}

export interface StoredObject {
  readonly key: string;
  readonly sizeBytes: number;
  readonly contentType?: string;
  readonly metadata: Readonly<Record<string, string>>;
  /** Without quotes. */
  readonly etag?: string;
  /** Unix time in milliseconds. A HEAD tells it to the second, a listing mostly closer. */
  readonly lastModified?: number;
}

export interface ListedObject {
  readonly key: string;
  readonly sizeBytes: number;
}

/**
 * Where bytes go: one bucket of an S3-compatible store.
 *
 * Callers may rely on this:
 * - A write is create-only where the store can, and harmless to repeat: the same bytes at the same key are a success
 *   with `created: false`, other bytes are `object-conflict` and are left as they lie.
 * - Nothing is visible at a key before all its bytes have arrived and been checked. A write that failed or was aborted
 *   leaves no object and no open multipart upload, unless the store was out of reach for the clean-up too; then
 *   `abandonUploads` of a later attempt removes it.
 * - After an error that leaves the outcome open (a timeout, a reset, a 5xx) the object is looked at before a failure
 *   is returned.
 * - Short-lived faults are retried within the call; every other fault is returned as a failure with a `store-` code.
 * - An aborted `signal` makes a call throw the signal's reason, soon.
 */
export interface ArchiveStore {
  write(object: WholeObject, signal: AbortSignal): Promise<Result<WriteReceipt>>;
  writeStream(object: StreamedObject, signal: AbortSignal): Promise<Result<WriteReceipt>>;

  /** Returns the object whose key is `<stem>.<extension>`, whatever the extension. */
  find(stem: string, signal: AbortSignal): Promise<Result<StoredObject | undefined>>;
  head(key: string, signal: AbortSignal): Promise<Result<StoredObject | undefined>>;
  /** Reads an object through and returns what its bytes are; `undefined` when there is none. */
  digest(key: string, signal: AbortSignal): Promise<Result<Digest | undefined>>;
  /** Lists in key order, a page at a time. @throws FailureError */
  list(prefix: string, signal: AbortSignal): AsyncIterable<ListedObject>;

  /** Removes an object. Harmless when there is none. Archiving needs it only where a store takes wrong bytes. */
  remove(key: string, signal: AbortSignal): Promise<Result<void>>;

  /** Reads a small JSON document; `undefined` when there is none, `null` when it is no JSON, or larger than any of ours. */
  readJson(key: string, signal: AbortSignal): Promise<Result<unknown>>;
  /** Writes or overwrites a small JSON document. */
  writeJson(key: string, document: unknown, signal: AbortSignal): Promise<Result<void>>;

  /** Aborts the multipart uploads that earlier attempts left open below `prefix`. Returns how many. */
  abandonUploads(prefix: string, signal: AbortSignal): Promise<Result<number>>;
}

/**
 * True when the store has no such listing or we have no right to it, which `doctor` tells. Going on costs a second
 * download at most; stopping here would keep every media that can't be saved from becoming a dead letter.
 */
export function mayNotLook({ code }: Failure): boolean {
  return code === 'store-denied' || code === 'store-refused';
}
