import {
  DeleteBucketLifecycleCommand,
  DeleteObjectCommand,
  PutBucketLifecycleConfigurationCommand,
} from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkStore, type Finding } from '../../src/store/check-store.ts';
import { headBucket, probePayloadCheck } from '../../src/store/probe.ts';
import type { Fault, S3Operation } from '../support/fault-proxy.ts';
import {
  openEmbeddedBackend,
  openStoreBench,
  type S3Backend,
  type StoreBench,
  type StoreBenchOptions,
} from '../support/store.ts';

const never = new AbortController().signal;
const DENIED: Fault = { type: 'answer', status: 403, code: 'AccessDenied' };
const NOT_IMPLEMENTED: Fault = { type: 'answer', status: 501, code: 'NotImplemented' };
const REGION = { 'x-amz-bucket-region': 'eu-west-1' };
const MALFORMED: Fault = {
  type: 'answer',
  status: 400,
  body: '<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>',
};
const MISMATCH: Fault = { type: 'answer', status: 412, code: 'PreconditionFailed' };

let backend: S3Backend;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
});

afterAll(() => backend[Symbol.asyncDispose]());

function openBench(options: StoreBenchOptions = {}): Promise<StoreBench> {
  return openStoreBench(backend, options);
}

function check({ client }: StoreBench): Promise<Finding[]> {
  return checkStore(client, backend.bucket, never);
}

function resultsOf(findings: readonly Finding[]): Record<string, Finding['result']> {
  return Object.fromEntries(findings.map((finding) => [finding.check, finding.result]));
}

/** The keys that lie in the bucket. */
async function leftBehind({ store }: StoreBench): Promise<string[]> {
  return (await Array.fromAsync(store.list('', never))).map(({ key }) => key);
}

describe('a store', () => {
  test('that does everything is found good, and nothing is left behind', async () => {
    await using bench = await openBench({ checkPayload: true });
    bench.proxy.arm(({ headers }) => headers['if-none-match'] === '*', MISMATCH);
    await bench.direct.send(
      new PutBucketLifecycleConfigurationCommand({
        Bucket: backend.bucket,
        LifecycleConfiguration: {
          Rules: [
            { Status: 'Enabled', Filter: { Prefix: '' }, AbortIncompleteMultipartUpload: { DaysAfterInitiation: 7 } },
          ],
        },
      }),
    );
    const findings = await check(bench);
    expect(findings.map((finding) => finding.check)).toEqual([
      'bucket',
      'write',
      'read',
      'list',
      'payload hash',
      'create-only',
      'multipart',
      'multipart list',
      'delete',
      'versions',
      'lifecycle',
      'lifecycle rule without a name',
    ]);
    expect(findings.filter(({ result }) => result !== 'ok')).toEqual([]);
    expect(await leftBehind(bench)).toEqual([]);
    expect(bench.proxy.openUploads()).toEqual([]);
    await bench.direct.send(new DeleteBucketLifecycleCommand({ Bucket: backend.bucket }));
  });

  test('that checks nothing and overwrites is warned of, and nothing is left behind', async () => {
    await using bench = await openBench();
    const findings = await check(bench);
    expect(findings.filter(({ result }) => result !== 'ok')).toEqual([
      expect.objectContaining({
        check: 'payload hash',
        result: 'warn',
        detail: 'writes with a wrong SHA-256 and a wrong Content-MD5 were taken',
        hint: 'Workers read every object of this store back and compare it.',
      }),
      expect.objectContaining({ check: 'create-only', result: 'warn', detail: 'If-None-Match is ignored' }),
      expect.objectContaining({ check: 'lifecycle', result: 'warn' }),
    ]);
    expect(await leftBehind(bench)).toEqual([]);
  });

  test('without conditional writes is warned of by the name of its answer', async () => {
    await using bench = await openBench({ checkPayload: true });
    bench.proxy.arm(({ headers }) => headers['if-none-match'] === '*', NOT_IMPLEMENTED);
    expect(await check(bench)).toContainEqual({
      check: 'create-only',
      result: 'warn',
      detail: 'If-None-Match is answered with NotImplemented',
      hint: 'Workers go on without it.',
    });
  });

  test('that gives other bytes back fails', async () => {
    await using bench = await openBench();
    bench.proxy.arm('PutObject', { type: 'corrupt', atByte: 0 }, 1);
    expect(resultsOf(await check(bench))).toMatchObject({ write: 'ok', read: 'fail' });
  });
});

describe('a bucket', () => {
  test('that is not there is the only finding, with what to do', async () => {
    await using bench = await openBench();
    expect(await checkStore(bench.client, 'no-such-bucket', never)).toEqual([
      {
        check: 'bucket',
        result: 'fail',
        detail: 'store-bucket-missing',
        hint: 'ARCHIVE_BUCKET does not exist. Create it.',
      },
    ]);
    expect(bench.proxy.seen.map(({ operation }) => operation)).toEqual(['HeadBucket']);
  });

  test.each<[string, Fault, string]>([
    ['AWS', { type: 'answer', status: 301, code: 'PermanentRedirect', headers: REGION }, 'PermanentRedirect'],
    ['AWS, as it says it of us-east-1, or of Garage', MALFORMED, 'AuthorizationHeaderMalformed'],
  ])('in another region of %s is the only finding, with the right one', async (_store, fault, name) => {
    await using bench = await openBench();
    bench.proxy.arm(() => true, fault);
    const detail = `${name}: the bucket is in eu-west-1`;
    expect(await check(bench)).toEqual([
      {
        check: 'bucket',
        result: 'fail',
        detail: `store-region-wrong (${detail})`,
        hint: expect.stringContaining('Set AWS_REGION'),
      },
    ]);
    const found = { code: 'store-region-wrong', detail };
    expect(await probePayloadCheck(bench.client, backend.bucket, never)).toMatchObject(found);
  });

  test.each<[string, S3Operation, string]>([
    ['that is refused', 'HeadBucket', 'bucket'],
    ['that takes no writes', 'PutObject', 'write'],
  ])('%s is where the look ends', async (_what, operation, named) => {
    await using bench = await openBench();
    bench.proxy.arm(operation, DENIED);
    const findings = await check(bench);
    expect(findings.at(-1)).toMatchObject({
      check: named,
      result: 'fail',
      detail: expect.stringMatching(/^store-denied/),
      hint: expect.stringContaining('refuses our credentials or rights'),
    });
    expect(findings.slice(0, -1).map(({ result }) => result)).not.toContain('fail');
    expect(await leftBehind(bench)).toEqual([]);
  });

  test.each<[S3Operation, Partial<Record<string, Finding['result']>>]>([
    ['GetObject', { write: 'ok', read: 'fail' }],
    ['ListObjects', { read: 'ok', list: 'warn' }],
    ['CreateMultipartUpload', { multipart: 'fail' }],
    ['ListMultipartUploads', { multipart: 'ok', 'multipart list': 'warn' }],
    ['AbortMultipartUpload', { multipart: 'warn', 'multipart list': 'ok' }],
    ['DeleteObject', { multipart: 'ok', delete: 'warn' }],
  ])('where %s is not allowed is told what that costs', async (operation, expected) => {
    await using bench = await openBench({ checkPayload: true });
    const armed = bench.proxy.arm(operation, DENIED);
    const findings = await check(bench);
    expect(resultsOf(findings)).toMatchObject(expected);
    for (const { result, hint } of findings) if (result !== 'ok') expect(hint).toMatch(/\.$/);
    armed.disarm();
    for (const key of await leftBehind(bench)) {
      expect(findings.find((finding) => finding.check === 'delete')?.detail).toContain(key);
      await bench.direct.send(new DeleteObjectCommand({ Bucket: backend.bucket, Key: key }));
    }
  });
});

describe('the payload check', () => {
  test('is by SHA-256 where a wrong one is refused', async () => {
    await using bench = await openBench({ checkPayload: true });
    expect(await probePayloadCheck(bench.client, backend.bucket, never)).toBe('sha256');
    expect(await leftBehind(bench)).toEqual([]);
  });

  test('is by Content-MD5 where only a wrong one of these is refused, and what was taken is removed', async () => {
    await using bench = await openBench();
    bench.proxy.arm(({ operation, headers }) => operation === 'PutObject' && headers['content-md5'] !== undefined, {
      type: 'answer',
      status: 400,
      code: 'BadDigest',
    });
    expect(await probePayloadCheck(bench.client, backend.bucket, never)).toBe('md5');
    expect(await leftBehind(bench)).toEqual([]);
  });

  test('is by nothing where both are taken, and what was taken is removed', async () => {
    await using bench = await openBench();
    expect(await probePayloadCheck(bench.client, backend.bucket, never)).toBe('nothing');
    expect(await leftBehind(bench)).toEqual([]);
  });

  test('is by SHA-256 of a store that calls it a wrong signature, as long as the bucket can be seen', async () => {
    await using bench = await openBench();
    const signature: Fault = { type: 'answer', status: 403, code: 'SignatureDoesNotMatch' };
    bench.proxy.arm('PutObject', signature);
    expect(await probePayloadCheck(bench.client, backend.bucket, never)).toBe('sha256');
    bench.proxy.arm('HeadBucket', signature);
    expect(await probePayloadCheck(bench.client, backend.bucket, never)).toMatchObject({ code: 'store-denied' });
  });

  test('of a store that refuses the bucket names what it refuses, which an answer to a HEAD can not', async () => {
    await using bench = await openBench();
    bench.proxy.arm('HeadBucket', { type: 'answer', status: 403 });
    bench.proxy.arm('ListObjects', { type: 'answer', status: 403, code: 'InvalidAccessKeyId' });
    expect(await headBucket(bench.client, backend.bucket, never)).toMatchObject({ detail: 'InvalidAccessKeyId' });
  });

  test.each<[string, Fault, string]>([
    ['refuses us', DENIED, 'store-denied'],
    ['is busy', { type: 'answer', status: 503, code: 'SlowDown' }, 'store-busy'],
    ['does not answer', { type: 'cut-request', afterBytes: 0 }, 'store-unreachable'],
  ])('is not known of a store that %s', async (_what, fault, code) => {
    await using bench = await openBench();
    bench.proxy.arm('PutObject', fault);
    expect(await probePayloadCheck(bench.client, backend.bucket, never)).toMatchObject({ code });
  });

  test('is not known of a bucket that is not there', async () => {
    await using bench = await openBench();
    expect(await probePayloadCheck(bench.client, 'no-such-bucket', never)).toMatchObject({
      code: 'store-bucket-missing',
    });
    expect(await headBucket(bench.client, 'no-such-bucket', never)).toMatchObject({ code: 'store-bucket-missing' });
    expect(await headBucket(bench.client, backend.bucket, never)).toBeUndefined();
  });
});
