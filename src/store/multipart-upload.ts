import { Readable } from 'node:stream';
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  NoSuchUpload,
  type S3Client,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { orAbort } from '../abort.ts';
import { SECOND } from '../time.ts';
import type { StreamedObject } from './archive-store.ts';
import { etagOf } from './read-object.ts';

/** Parts on the wire at once, for one object. Counted in `PARTS_HELD`. */
const PARTS_IN_FLIGHT = 2;

const CLEAN_UP_TIMEOUT_MS = 30 * SECOND;

/** How long after an abort an upload that is being begun may still tell its id, without which it can't be aborted. */
const BEGIN_GRACE_MS = 5 * SECOND;

/**
 * Uploads an object in equal parts while its bytes arrive. Some stores (R2) demand equal parts.
 *
 * lib-storage's own `abort()` rejects at once and leaves the parts in flight and the clean-up to themselves, so it is not
 * used: `signal` ends the requests, which makes the upload fail, and a failing upload sends AbortMultipartUpload before
 * it rejects. Only that request is not cancelled, and the one that begins the upload not at once.
 *
 * @returns the ETag, where the store tells it.
 * @throws what the store or `object.chunks` threw.
 */
export async function uploadInParts(
  client: S3Client,
  bucket: string,
  object: Omit<StreamedObject, 'digest'>,
  partSizeBytes: number,
  createOnly: boolean,
  signal: AbortSignal,
): Promise<string | undefined> {
  signal.throwIfAborted();
  const begun = new AbortController();
  let grace: NodeJS.Timeout | undefined;
  const onAbort = (): void => {
    grace = setTimeout(() => begun.abort(signal.reason), BEGIN_GRACE_MS);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  const signalFor = (command: unknown): AbortSignal => {
    if (command instanceof AbortMultipartUploadCommand) return AbortSignal.timeout(CLEAN_UP_TIMEOUT_MS);
    return command instanceof CreateMultipartUploadCommand ? begun.signal : signal;
  };
  /** Of the request that begins the upload. */
  let tries = 0;
  const cancellable = new Proxy(client, {
    get(target, property, receiver) {
      if (property !== 'send') return Reflect.get(target, property, receiver);
      return async (command: Parameters<S3Client['send']>[0]) => {
        const sent = target.send(command, { abortSignal: signalFor(command) });
        if (command instanceof CreateMultipartUploadCommand) {
          const answer = await sent;
          tries = answer.$metadata.attempts ?? 1;
          return answer;
        }
        // The upload fails anyway, and for its own reason: `abandonUploads` of a later attempt does what this could not.
        return command instanceof AbortMultipartUploadCommand ? sent.catch(() => undefined) : sent;
      };
    },
  });
  const body = Readable.from(untilAborted(object.chunks, signal));
  // The upload reports it; without a listener an error after the upload has failed would end the process.
  body.on('error', () => undefined);
  const upload = new Upload({
    client: cancellable,
    params: {
      Bucket: bucket,
      Key: object.key,
      Body: body,
      ContentType: object.contentType,
      Metadata: { ...object.metadata },
      ...(createOnly ? { IfNoneMatch: '*' } : {}),
    },
    partSize: partSizeBytes,
    queueSize: PARTS_IN_FLIGHT,
    leavePartsOnError: false,
  });
  try {
    return etagOf((await upload.done()).ETag);
  } finally {
    signal.removeEventListener('abort', onAbort);
    clearTimeout(grace);
    // An answer that was lost may have told the id of another upload, which nobody would ever complete or abort.
    if (tries > 1) await abandonUploads(client, bucket, object.key, signal).catch(() => undefined);
  }
}

/** Passes chunks on, and throws the signal's reason even while the source gives nothing. */
async function* untilAborted(chunks: AsyncIterable<Uint8Array>, signal: AbortSignal): AsyncIterable<Uint8Array> {
  const source = chunks[Symbol.asyncIterator]();
  try {
    for (;;) {
      const next = await orAbort(source.next(), signal);
      if (next.done === true) return;
      yield next.value;
    }
  } finally {
    // Not awaited: a source that gives nothing does not return either.
    source.return?.().catch(() => undefined);
  }
}

/** Aborts every open multipart upload below `prefix` and returns how many there were. @throws what the store throws. */
export async function abandonUploads(
  client: S3Client,
  bucket: string,
  prefix: string,
  signal: AbortSignal,
): Promise<number> {
  let count = 0;
  let markers: { KeyMarker?: string; UploadIdMarker?: string } = {};
  for (;;) {
    const page = await client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix, ...markers }), {
      abortSignal: signal,
    });
    for (const { Key, UploadId } of page.Uploads ?? []) {
      if (Key === undefined || UploadId === undefined) continue;
      // Whoever began it may have ended it meanwhile.
      await client
        .send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }), { abortSignal: signal })
        .catch((error: unknown) => {
          if (!(error instanceof NoSuchUpload)) throw error;
        });
      count += 1;
    }
    if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return count;
    markers = {
      KeyMarker: page.NextKeyMarker,
      ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
    };
  }
}
