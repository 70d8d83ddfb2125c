import { FailureError, fail, failure, type Result, succeed } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import type { ArchiveStore, Digest, WriteReceipt } from '../store/archive-store.ts';
import { mayNotLook, PARTS_HELD } from '../store/archive-store.ts';
import { annotationsKey, mediaKey, mediaKeyStem } from '../store/object-keys.ts';
import { type Clock, iso } from '../time.ts';
import type { MediaBody } from '../weixin/media-body.ts';
import type { WeixinClient } from '../weixin/weixin-client.ts';
import type { BodyBuffers } from './body-buffers.ts';
import type { ByteBudget } from './byte-budget.ts';
import { digestStream } from './digest-stream.ts';
import { type Annotations, type AttemptFacts, contentTypeOf, describeObject, extensionOf } from './object-metadata.ts';

/** A media that lies, verified, in the bucket. */
export interface ArchivedObject {
  readonly key: string;
  readonly sizeBytes: number;
  readonly sha256: string;
  readonly contentType: string;
  /** As they lie with the object: see `factsOf`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** What lies apart from it, where its metadata say so. */
  readonly annotations?: Annotations;
  /** The store's own, without quotes. */
  readonly etag?: string;
  /** False when it lay there already. */
  readonly created: boolean;
}

export interface ArchiveParts {
  readonly weixin: WeixinClient;
  readonly store: ArchiveStore;
  readonly budget: ByteBudget;
  readonly buffers: BodyBuffers;
  readonly partSizeBytes: number;
  readonly maxBytes: number;
  /** What the queue knows of this attempt. */
  readonly attempt?: AttemptFacts;
  readonly now: Clock;
}

/**
 * The one thing we do: fetches a media and stores it, verified.
 *
 * Harmless to repeat, and a crash at any point costs a repetition at most: nothing is visible at the key before the
 * bytes are whole.
 *
 * @throws the signal's reason when it aborts.
 */
export async function archiveMedia(
  parts: ArchiveParts,
  job: MediaJob,
  signal: AbortSignal,
): Promise<Result<ArchivedObject>> {
  const fetched = await parts.weixin.fetch(job, signal);
  if (!fetched.ok || !fetched.value.isEndUnproven)
    return fetched.ok ? storeBody(parts, job, fetched.value, signal) : fetched;
  // Nothing tells a whole body from one that was cut short, but that the next download is the same.
  const first = await digestOf(fetched.value);
  if (!first.ok) return first;
  const again = await parts.weixin.fetch(job, signal);
  if (!again.ok) return again;
  const chunks = again.value.isEndUnproven ? expecting(first.value, again.value.chunks) : again.value.chunks;
  return storeBody(parts, job, { ...again.value, chunks }, signal);
}

async function storeBody(
  parts: ArchiveParts,
  job: MediaJob,
  body: MediaBody,
  signal: AbortSignal,
): Promise<Result<ArchivedObject>> {
  return readingBody(body, () => store(parts, job, body, signal));
}

/** Runs what reads a body, turns what its chunks throw into a failure, and lets go of the body. */
async function readingBody<T>(body: MediaBody, read: () => Promise<Result<T>>): Promise<Result<T>> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof FailureError) return { ok: false, failure: error.failure };
    throw error;
  } finally {
    body.discard();
  }
}

/** Reads a body through without keeping it. */
function digestOf(body: MediaBody): Promise<Result<Digest>> {
  return readingBody(body, async () => {
    const { chunks, digest } = digestStream(body.chunks);
    for await (const _ of chunks);
    return succeed(digest());
  });
}

/** Passes chunks on. @throws FailureError at their end when they are not what they should be. */
async function* expecting(expected: Digest, source: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> {
  const { chunks, digest } = digestStream(source);
  yield* chunks;
  if (digest().sha256 !== expected.sha256) {
    const detail = `of unknown length: ${expected.sizeBytes} bytes, then ${digest().sizeBytes}`;
    throw new FailureError(failure('body-truncated', { detail }));
  }
}

async function store(
  parts: ArchiveParts,
  job: MediaJob,
  body: MediaBody,
  signal: AbortSignal,
): Promise<Result<ArchivedObject>> {
  const { budget, buffers, partSizeBytes, maxBytes } = parts;
  const { contentLength } = body;
  if (contentLength !== undefined && contentLength > maxBytes) {
    return fail('media-too-large', { detail: `${contentLength} bytes` });
  }
  // A body of unknown length may turn out to need parts; reserving them later, with a part in hand, could deadlock.
  const fitsOnePart = contentLength !== undefined && contentLength <= partSizeBytes;
  const neededBytes = fitsOnePart ? buffers.footprint(contentLength) : PARTS_HELD * partSizeBytes;
  using _reservation = await budget.reserve(neededBytes, signal);

  const stream = digestStream(body.chunks);
  const chunks = stream.chunks[Symbol.asyncIterator]();
  const held = fitsOnePart
    ? await readWhole(chunks, buffers.take(contentLength))
    : await readUpTo(chunks, partSizeBytes);

  const archivedAt = iso(parts.now());
  const named = { key: mediaKey(job, extensionOf(body)), contentType: contentTypeOf(body) };
  const known = held.ended ? stream.digest() : undefined;
  const { metadata, annotations } = describeObject(job, body, parts.attempt, archivedAt, known?.sha256);
  if (annotations !== undefined) {
    const annotated = await parts.store.writeJson(annotationsKey(job), annotations, signal);
    if (!annotated.ok) return annotated;
  }
  let receipt: Result<WriteReceipt>;
  let isReleased = false;
  const onReleased = (): void => {
    isReleased = true;
  };
  if (known !== undefined) {
    receipt = await parts.store.write({ ...named, metadata, body: held.bytes, digest: known, onReleased }, signal);
  } else {
    // What an earlier attempt could not take back because the store was out of reach.
    const abandoned = await parts.store.abandonUploads(`${mediaKeyStem(job)}.`, signal);
    if (!abandoned.ok && !mayNotLook(abandoned.failure)) return abandoned;
    receipt = await parts.store.writeStream(
      { ...named, metadata, chunks: heldThenRest(held.bytes, chunks), digest: stream.digest },
      signal,
    );
  }
  if (!receipt.ok) return receipt;
  const { created, digest, etag, stored } = receipt.value;
  if (fitsOnePart && isReleased) buffers.give(held.bytes);
  return succeed({
    ...named,
    ...digest,
    // What lay there is described by what it says of itself.
    metadata: stored?.metadata ?? metadata,
    ...(stored?.contentType === undefined ? {} : { contentType: stored.contentType }),
    ...(annotations === undefined ? {} : { annotations }),
    ...(etag === undefined ? {} : { etag }),
    created,
  });
}

interface Held {
  readonly bytes: Buffer;
  /** False when there is more to come. */
  readonly ended: boolean;
}

/** Reads a body of known length into memory that is exactly as large. */
async function readWhole(chunks: AsyncIterator<Uint8Array>, bytes: Buffer): Promise<Held> {
  const sizeBytes = bytes.byteLength;
  let filled = 0;
  for (let next = await chunks.next(); next.done !== true; next = await chunks.next()) {
    filled += next.value.byteLength;
    if (filled > sizeBytes)
      throw new FailureError(failure('body-truncated', { detail: `more than ${sizeBytes} bytes` }));
    bytes.set(next.value, filled - next.value.byteLength);
  }
  if (filled < sizeBytes)
    throw new FailureError(failure('body-truncated', { detail: `${filled} of ${sizeBytes} bytes` }));
  return { bytes, ended: true };
}

/** Reads until the end, or until more than `limit` bytes are there. */
async function readUpTo(chunks: AsyncIterator<Uint8Array>, limit: number): Promise<Held> {
  const pieces: Uint8Array[] = [];
  let sizeBytes = 0;
  for (;;) {
    const { done, value } = await chunks.next();
    if (done === true) return { bytes: Buffer.concat(pieces, sizeBytes), ended: true };
    pieces.push(value);
    sizeBytes += value.byteLength;
    if (sizeBytes > limit) return { bytes: Buffer.concat(pieces, sizeBytes), ended: false };
  }
}

async function* heldThenRest(held: Uint8Array, rest: AsyncIterator<Uint8Array>): AsyncIterable<Uint8Array> {
  try {
    yield held;
    for (let next = await rest.next(); next.done !== true; next = await rest.next()) yield next.value;
  } finally {
    await rest.return?.();
  }
}
