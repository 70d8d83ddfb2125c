import { randomUUID } from 'node:crypto';
import {
  AbortMultipartUploadCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { FAILURES, type Failure } from '../failure.ts';
import { readBucketRules } from './bucket-rules.ts';
import { ruleFindings } from './check-rules.ts';
import { headBucket, PROBE_PREFIX, probePayloadCheck } from './probe.ts';
import { classifyStoreError } from './s3-errors.ts';

/** One thing looked at, and what to do about it if it is not as it should be. */
export interface Finding {
  readonly check: string;
  /** `warn`: it works, but something is weaker than it could be. */
  readonly result: 'ok' | 'warn' | 'fail';
  readonly detail: string;
  readonly hint?: string;
}

/**
 * Finds out what a store can do and what we may do in it, by doing it below `probe/`. Leaves nothing behind where it may
 * delete.
 */
export async function checkStore(client: S3Client, bucket: string, signal: AbortSignal): Promise<Finding[]> {
  const unseen = await headBucket(client, bucket, signal);
  if (unseen !== undefined) return [failed('bucket', unseen)];
  const findings: Finding[] = [ok('bucket', `${bucket} is there`)];
  const key = `${PROBE_PREFIX}${randomUUID()}`;
  const body = Buffer.from('written by doctor');
  const options = { abortSignal: signal };

  const written = await trial(() =>
    client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: body }), options),
  );
  findings.push(written === undefined ? ok('write', 'objects can be written') : failed('write', written));
  if (written !== undefined) return findings;

  const read = await trial(async () => {
    const answer = await client.send(new GetObjectCommand({ Bucket: bucket, Key: key }), options);
    if (!body.equals((await answer.Body?.transformToByteArray()) ?? Buffer.alloc(0)))
      throw new Error('other bytes came back');
    await client.send(new HeadObjectCommand({ Bucket: bucket, Key: key }), options);
  });
  findings.push(read === undefined ? ok('read', 'the same bytes come back') : failed('read', read));

  const listed = await trial(() =>
    client.send(new ListObjectsV2Command({ Bucket: bucket, Prefix: key, MaxKeys: 1 }), options),
  );
  findings.push(
    listed === undefined
      ? ok('list', 'objects can be listed')
      : warned(
          'list',
          listed.detail ?? listed.code,
          'Grant s3:ListBucket: it finds what a worker that died has stored.',
        ),
  );

  findings.push(await checkPayload(client, bucket, signal), await checkCreateOnly(client, bucket, key, body, signal));
  findings.push(...(await checkMultipart(client, bucket, signal)));

  const removed = await trial(() => client.send(new DeleteObjectCommand({ Bucket: bucket, Key: key }), options));
  findings.push(
    removed === undefined
      ? ok('delete', 'the probe could be removed')
      : warned('delete', `${key} is left behind`, 'Archiving needs no s3:DeleteObject. Remove the probe by hand.'),
  );
  findings.push(...ruleFindings(await readBucketRules(client, bucket, signal)));
  return findings;
}

async function checkPayload(client: S3Client, bucket: string, signal: AbortSignal): Promise<Finding> {
  const checks = await probePayloadCheck(client, bucket, signal);
  if (typeof checks === 'object') return failed('payload hash', checks);
  switch (checks) {
    case 'sha256':
      return ok('payload hash', 'a write with a wrong SHA-256 is refused');
    case 'md5':
      return warned(
        'payload hash',
        'a write with a wrong SHA-256 was taken, one with a wrong Content-MD5 refused',
        'Workers add Content-MD5 to every write to this store.',
      );
    case 'nothing':
      return warned(
        'payload hash',
        'writes with a wrong SHA-256 and a wrong Content-MD5 were taken',
        'Workers read every object of this store back and compare it.',
      );
    default:
      return checks satisfies never;
  }
}

async function checkCreateOnly(
  client: S3Client,
  bucket: string,
  key: string,
  body: Uint8Array,
  signal: AbortSignal,
): Promise<Finding> {
  const again = await trial(() =>
    client.send(new PutObjectCommand({ Bucket: bucket, Key: key, Body: body, IfNoneMatch: '*' }), {
      abortSignal: signal,
    }),
  );
  if (again?.code === 'object-conflict') return ok('create-only', 'If-None-Match is honoured: nothing is overwritten');
  if (again === undefined) {
    return warned(
      'create-only',
      'If-None-Match is ignored',
      'A media that is stored twice is overwritten with the same bytes.',
    );
  }
  return warned(
    'create-only',
    `If-None-Match is answered with ${again.detail ?? again.code}`,
    'Workers go on without it.',
  );
}

async function checkMultipart(client: S3Client, bucket: string, signal: AbortSignal): Promise<Finding[]> {
  const options = { abortSignal: signal };
  const key = `${PROBE_PREFIX}${randomUUID()}`;
  let uploadId: string | undefined;
  const begun = await trial(async () => {
    uploadId = (await client.send(new CreateMultipartUploadCommand({ Bucket: bucket, Key: key }), options)).UploadId;
  });
  if (begun !== undefined) return [failed('multipart', begun)];
  const listed = await trial(() =>
    client.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: key }), options),
  );
  const aborted = await trial(() =>
    client.send(new AbortMultipartUploadCommand({ Bucket: bucket, Key: key, UploadId: uploadId }), options),
  );
  return [
    aborted === undefined
      ? ok('multipart', 'uploads can be begun and aborted')
      : warned(
          'multipart',
          `an upload of ${key} is left open`,
          'Grant s3:AbortMultipartUpload, and let a lifecycle rule abort old uploads.',
        ),
    listed === undefined
      ? ok('multipart list', 'open uploads can be listed')
      : warned(
          'multipart list',
          listed.detail ?? listed.code,
          'Uploads of workers that were killed stay open: let a lifecycle rule abort them.',
        ),
  ];
}

async function trial(run: () => Promise<unknown>): Promise<Failure | undefined> {
  try {
    await run();
    return undefined;
  } catch (error) {
    return classifyStoreError(error);
  }
}

function ok(check: string, detail: string): Finding {
  return { check, result: 'ok', detail };
}

function warned(check: string, detail: string, hint: string): Finding {
  return { check, result: 'warn', detail, hint };
}

function failed(check: string, { code, detail }: Failure): Finding {
  return {
    check,
    result: 'fail',
    detail: detail === undefined ? code : `${code} (${detail})`,
    hint: FAILURES[code].hint,
  };
}
