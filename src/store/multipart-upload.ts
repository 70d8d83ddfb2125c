import { Readable } from 'node:stream';
import { AbortMultipartUploadCommand, ListMultipartUploadsCommand, type S3Client } from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { SECOND } from '../time.ts';
import type { StreamedObject } from './archive-store.ts';

/** Parts on the wire at once, for one object. Counted in `PARTS_HELD`. */
const PARTS_IN_FLIGHT = 2;

const CLEAN_UP_TIMEOUT_MS = 30 * SECOND;

/**
 * Uploads an object in equal parts while its bytes arrive. Some stores (R2) demand equal parts.
 *
 * lib-storage's own `abort()` rejects at once and leaves the parts in flight and the clean-up to themselves, so it is not
 * used: `signal` ends the requests, which makes the upload fail, and a failing upload sends AbortMultipartUpload before
 * it rejects. Only that request is not cancelled.
 *
 * @throws what the store or `object.chunks` threw.
 */
export async function uploadInParts(
  client: S3Client,
  bucket: string,
  object: StreamedObject,
  partSizeBytes: number,
  createOnly: boolean,
  signal: AbortSignal,
): Promise<void> {
  const cancellable = new Proxy(client, {
    get(target, property, receiver) {
      if (property !== 'send') return Reflect.get(target, property, receiver);
      return (command: Parameters<S3Client['send']>[0]) => {
        const cleansUp = command instanceof AbortMultipartUploadCommand;
        return target.send(command, { abortSignal: cleansUp ? AbortSignal.timeout(CLEAN_UP_TIMEOUT_MS) : signal });
      };
    },
  });
  const body = Readable.from(object.chunks);
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
  await upload.done();
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
      await client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key, UploadId }), { abortSignal: signal });
      count += 1;
    }
    if (page.IsTruncated !== true || page.NextKeyMarker === undefined) return count;
    markers = {
      KeyMarker: page.NextKeyMarker,
      ...(page.NextUploadIdMarker === undefined ? {} : { UploadIdMarker: page.NextUploadIdMarker }),
    };
  }
}
