import { randomUUID } from 'node:crypto';
import { DeleteObjectCommand, HeadBucketCommand, PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { type Failure, failure } from '../failure.ts';
import { withPayloadHash } from './payload-hash.ts';
import { classifyStoreError } from './s3-errors.ts';

/** Objects below this prefix exist for a moment only. */
export const PROBE_PREFIX = 'probe/';

/** SHA-256 of nothing: certainly not that of the probe's body. */
const WRONG_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

/**
 * Finds out whether the store checks the payload hash that a signature carries, by sending a wrong one.
 *
 * @returns `true` when the store refused it, `false` when it took it (the object is removed again), or the failure that
 * kept us from finding out: a missing bucket, refused credentials, no answer.
 */
export async function probePayloadCheck(
  client: S3Client,
  bucket: string,
  signal: AbortSignal,
): Promise<boolean | Failure> {
  const key = `${PROBE_PREFIX}${randomUUID()}`;
  const body = Buffer.from('a wrong payload hash must be refused');
  const command = withPayloadHash(new PutObjectCommand({ Bucket: bucket, Key: key, Body: body }), WRONG_SHA256);
  try {
    await client.send(command, { abortSignal: signal });
  } catch (error) {
    const reason = classifyStoreError(error);
    if (reason.code === 'store-corrupted') return true;
    // Some stores call it a wrong signature. A bucket that can be seen tells that the credentials are right.
    const unseen = await headBucket(client, bucket, signal);
    if (unseen !== undefined) return unseen;
    return reason.detail === 'SignatureDoesNotMatch' || reason.code === 'store-refused' ? true : reason;
  }
  await client
    .send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal })
    .catch(() => undefined);
  return false;
}

/** Returns why the bucket can't be used, or `undefined` when it is there and ours to see. */
export async function headBucket(client: S3Client, bucket: string, signal: AbortSignal): Promise<Failure | undefined> {
  try {
    await client.send(new HeadBucketCommand({ Bucket: bucket }), { abortSignal: signal });
    return undefined;
  } catch (error) {
    const reason = classifyStoreError(error);
    // A HEAD has no body, so the SDK knows the status only.
    return reason.httpStatus === 404 ? failure('store-bucket-missing', { httpStatus: 404 }) : reason;
  }
}
