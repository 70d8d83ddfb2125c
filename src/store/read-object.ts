import type { Readable } from 'node:stream';
import {
  GetObjectCommand,
  type GetObjectCommandOutput,
  HeadObjectCommand,
  type HeadObjectCommandOutput,
  NotFound,
  type S3Client,
  S3ServiceException,
} from '@aws-sdk/client-s3';
import { FailureError, failure } from '../failure.ts';
import type { StoredObject } from './archive-store.ts';
import { throwStoreError } from './attempt.ts';
import { httpStatusOf } from './s3-errors.ts';

/** An object whose bytes are on their way. Whoever does not read them to their end, or `break`s, disposes of it. */
export interface OpenObject extends Disposable {
  readonly facts: StoredObject;
  /** To be read once. Throws a `FailureError` on faults, also when fewer bytes come than were announced. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** Returns what a HEAD tells, `undefined` when there is no object. @throws what the store throws. */
export async function headObject(
  client: S3Client,
  bucket: string,
  key: string,
  signal: AbortSignal,
): Promise<StoredObject | undefined> {
  try {
    return factsOf(
      key,
      await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal }),
    );
  } catch (error) {
    // A HEAD has no body, so a missing bucket looks like a missing key; the write itself tells them apart.
    if (error instanceof NotFound || httpStatusOf(error) === 404) return undefined;
    throw error;
  }
}

/** Begins to read an object; `undefined` when there is none. @throws FailureError, or what the store throws. */
export async function openObject(
  client: S3Client,
  bucket: string,
  key: string,
  signal: AbortSignal,
): Promise<OpenObject | undefined> {
  let answer: GetObjectCommandOutput;
  try {
    answer = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal });
  } catch (error) {
    if (error instanceof S3ServiceException && error.name === 'NoSuchKey') return undefined;
    throw error;
  }
  const body = answer.Body as Readable;
  // It is told to whoever reads. Until somebody does, an error without a listener would end the process.
  body.on('error', () => undefined);
  const dispose = (): void => {
    body.destroy();
  };
  const sizeBytes = answer.ContentLength;
  if (sizeBytes === undefined) {
    dispose();
    throw new FailureError(failure('store-refused', { detail: 'an object came without Content-Length' }));
  }
  return {
    facts: factsOf(key, answer),
    chunks: wholeBody(body, sizeBytes, signal),
    [Symbol.dispose]: dispose,
  };
}

async function* wholeBody(body: Readable, sizeBytes: number, signal: AbortSignal): AsyncIterable<Uint8Array> {
  let seen = 0;
  try {
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      signal.throwIfAborted();
      seen += chunk.byteLength;
      yield chunk;
    }
  } catch (error) {
    throwStoreError(error, signal);
  }
  if (seen !== sizeBytes) {
    throw new FailureError(failure('store-unreachable', { detail: `${seen} of ${sizeBytes} bytes came` }));
  }
}

function factsOf(
  key: string,
  { ContentLength, ContentType, Metadata, ETag, LastModified }: HeadObjectCommandOutput | GetObjectCommandOutput,
): StoredObject {
  const etag = etagOf(ETag);
  return {
    key,
    sizeBytes: ContentLength ?? 0,
    metadata: Metadata ?? {},
    ...(ContentType === undefined ? {} : { contentType: ContentType }),
    ...(etag === undefined ? {} : { etag }),
    ...(LastModified === undefined ? {} : { lastModified: LastModified.getTime() }),
  };
}

/** Takes the quotes off an ETag; `undefined` for an empty one. */
export function etagOf(header: string | undefined): string | undefined {
  const etag = header?.replace(/^(?:W\/)?"(.*)"$/, '$1');
  return etag === '' ? undefined : etag;
}
