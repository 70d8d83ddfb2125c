import { randomUUID } from 'node:crypto';
import {
  DeleteObjectCommand,
  HeadBucketCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { type Failure, failure } from '../failure.ts';
import { withPayloadHash } from './payload-hash.ts';
import { classifyStoreError } from './s3-errors.ts';

/** Objects below this prefix exist for a moment only. */
export const PROBE_PREFIX = 'probe/';

/** Of nothing: certainly not those of the probe's body. */
const WRONG_SHA256 = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
const WRONG_MD5 = '1B2M2Y8AsgTpgAmY7PhCfg==';

/**
 * What a store compares the bytes of a write with: the payload hash that the signature carries, only `Content-MD5`, or
 * nothing at all.
 */
export type PayloadCheck = 'sha256' | 'md5' | 'nothing';

/**
 * Finds out whether the store checks what it gets, by sending what is wrong. What it takes all the same is removed again.
 *
 * @returns what it checks, or the failure that kept us from finding out: a missing bucket, refused credentials, no answer.
 */
export async function probePayloadCheck(
  client: S3Client,
  bucket: string,
  signal: AbortSignal,
): Promise<PayloadCheck | Failure> {
  const body = Buffer.from('a wrong hash must be refused');
  const wrongHash = await takes((Key) => {
    return withPayloadHash(new PutObjectCommand({ Bucket: bucket, Key, Body: body }), WRONG_SHA256);
  });
  if (wrongHash !== true) return wrongHash === false ? 'sha256' : wrongHash;
  const wrongMd5 = await takes((Key) => {
    return new PutObjectCommand({ Bucket: bucket, Key, Body: body, ContentMD5: WRONG_MD5 });
  });
  if (wrongMd5 !== true) return wrongMd5 === false ? 'md5' : wrongMd5;
  return 'nothing';

  /** True when the store takes the wrong write, false when it refuses it for being wrong. */
  async function takes(command: (key: string) => PutObjectCommand): Promise<boolean | Failure> {
    const key = `${PROBE_PREFIX}${randomUUID()}`;
    try {
      await client.send(command(key), { abortSignal: signal });
    } catch (error) {
      const reason = classifyStoreError(error);
      if (reason.code === 'store-corrupted') return false;
      // Some stores call it a wrong signature. A bucket that can be seen tells that the credentials are right.
      const unseen = await headBucket(client, bucket, signal);
      if (unseen !== undefined) return unseen;
      return reason.detail === 'SignatureDoesNotMatch' || reason.code === 'store-refused' ? false : reason;
    }
    await client
      .send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), { abortSignal: signal })
      .catch(() => undefined);
    return true;
  }
}

/** Returns why the bucket can't be used, or `undefined` when it is there and ours to see. */
export async function headBucket(client: S3Client, bucket: string, signal: AbortSignal): Promise<Failure | undefined> {
  try {
    await client.send(new HeadBucketCommand({ Bucket: bucket }), { abortSignal: signal });
    return undefined;
  } catch (error) {
    const reason = classifyStoreError(error);
    // A HEAD has no body, so the SDK knows the status only. A list says what is wrong.
    if (reason.httpStatus === 404) return failure('store-bucket-missing', { httpStatus: 404 });
    return (await whyNotListed(client, bucket, signal)) ?? reason;
  }
}

async function whyNotListed(client: S3Client, bucket: string, signal: AbortSignal): Promise<Failure | undefined> {
  try {
    await client.send(new ListObjectsV2Command({ Bucket: bucket, MaxKeys: 1 }), { abortSignal: signal });
    return undefined;
  } catch (error) {
    return classifyStoreError(error);
  }
}
