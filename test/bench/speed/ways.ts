/**
 * Compares ways of doing the parts that a media costs most for, each by itself, in one process: what decided how they are done.
 *
 *   npm run bench:ways -- [--rounds N] [--scale N] [--json]
 *
 * PutObject of 64 KiB with the metadata of a media: by client-s3 as it comes, by client-s3 over undici, by its signer over
 * undici as the worker does it, signed by hand, and not signed at all. A body of 64 KiB and of 1 MiB had from an origin: as a
 * stream, as the worker has it, and at its barest. A body of 1 MiB in 16 chunks sent on: joined in fresh memory, joined in
 * memory that is used again, not joined. Prints CPU time of this process, the median of all rounds.
 */
import { createHash, createHmac } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { type Dispatcher, Pool } from 'undici';
import { BodyBuffers } from '../../../src/archive/body-buffers.ts';
import { positiveNumber, positiveWholeNumber } from '../../../src/operate/option-parsers.ts';
import { Secret } from '../../../src/secret.ts';
import type { WholeObject } from '../../../src/store/archive-store.ts';
import { withPayloadHash } from '../../../src/store/payload-hash.ts';
import { createDirectPut } from '../../../src/store/put-object.ts';
import { createS3Client, DEFAULT_S3_TIMEOUTS } from '../../../src/store/s3-client.ts';
import { openRequest } from '../../../src/weixin/byte-source.ts';
import { benchOptions } from '../bench-options.ts';
import { provideProgram } from './debian-program.ts';
import { startOrigin, startSink } from './nginx.ts';
import { median } from './results.ts';
import { WORKLOADS } from './samples.ts';

const { values, read } = benchOptions('bench:ways', {
  rounds: { type: 'string', default: '7' },
  scale: { type: 'string', default: '1' },
  json: { type: 'boolean' },
});
const rounds = read('rounds', positiveWholeNumber);
const scale = read('scale', positiveNumber);
const AT_ONCE = 64;
const BUCKET = 'bench';
const KEYS = { accessKeyId: 'bench', secretAccessKey: 'key-of-the-bench' };
const MIB = 1024 * 1024;
const WHOLE = Buffer.alloc(MIB, 7);
const never = new AbortController().signal;

await using parts = new AsyncDisposableStack();
const folder = await mkdtemp(join(tmpdir(), 'weixin-media-ways-'));
parts.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
const nginx = await provideProgram('nginx', 'usr/sbin/nginx');
const origin = parts.use(await startOrigin(nginx, folder));
const sink = parts.use(await startSink(nginx, folder));
const from = new Pool(origin.url, { connections: AT_ONCE });
const to = new Pool(sink.url, { connections: AT_ONCE });
parts.defer(() => from.destroy());
parts.defer(() => to.destroy());

interface Way {
  readonly what: string;
  readonly how: string;
  /** Of one round. */
  readonly count: number;
  readonly run: (index: number) => Promise<unknown>;
}

const ways = [...putWays(), ...getWays('64KiB', 2_000), ...getWays('1MiB', 300), ...joinWays()];
const costs = new Map<Way, number[]>();
for (const way of ways) await inParallel(way);
for (let round = 0; round < rounds; round += 1) {
  for (const way of ways) {
    const before = process.cpuUsage();
    await inParallel(way);
    const { user, system } = process.cpuUsage(before);
    costs.set(way, [...(costs.get(way) ?? []), (user + system) / 1_000 / countOf(way)]);
  }
}
let what = '';
for (const [way, measured] of costs) {
  const cpuMs = median(measured);
  if (values.json) {
    console.log(JSON.stringify({ what: way.what, how: way.how, cpuMs }));
    continue;
  }
  if (way.what !== what) console.log(`\n| ${way.what} | CPU time |\n|---|--:|`);
  what = way.what;
  console.log(`| ${way.how} | ${cpuMs.toFixed(3)} ms |`);
}

function countOf({ count }: Way): number {
  return Math.ceil(count * scale);
}

async function inParallel(way: Way): Promise<void> {
  const count = countOf(way);
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < count) {
      next += 1;
      await way.run(next);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

function putWays(): Way[] {
  const body = Buffer.alloc(64 * 1024, 7);
  const sha256 = createHash('sha256').update(body).digest('hex');
  const now = new Date().toISOString();
  const metadata = {
    'app-id': 'wx0123456789abcdef',
    'media-id': 'M'.repeat(64),
    kind: 'image',
    'received-at': now,
    'archived-at': now,
    sha256,
    'source-type': 'image/jpeg',
    'sniffed-type': 'image/jpeg',
    'enqueued-at': now,
    'started-at': now,
    attempts: '1',
    deadline: now,
    'worker-version': '0.0.0',
    schema: '1',
  };
  const object = (index: number): WholeObject => ({
    key: `media/app=wx0123456789abcdef/kind=image/dt=2026-06-15/${index}.jpg`,
    contentType: 'image/jpeg',
    metadata,
    body,
    digest: { sizeBytes: body.byteLength, sha256 },
  });
  const command = ({ key, contentType }: WholeObject): PutObjectCommand =>
    withPayloadHash(
      new PutObjectCommand({
        Bucket: BUCKET,
        Key: key,
        Body: body,
        ContentLength: body.byteLength,
        ContentType: contentType,
        Metadata: metadata,
        IfNoneMatch: '*',
      }),
      sha256,
    );
  const config = {
    bucket: BUCKET,
    endpoint: sink.url,
    partSizeBytes: 8 * MIB,
    forcePathStyle: true,
    credentials: { accessKeyId: KEYS.accessKeyId, secretAccessKey: new Secret(KEYS.secretAccessKey) },
  };
  const client = createS3Client(config, AT_ONCE);
  parts.defer(() => client.destroy());
  const overUndici = new S3Client({
    endpoint: sink.url,
    region: 'us-east-1',
    forcePathStyle: true,
    credentials: KEYS,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    requestHandler: { metadata: { handlerProtocol: 'http/1.1' }, handle: sendByUndici },
  });
  const direct = createDirectPut({
    client,
    bucket: BUCKET,
    timeouts: DEFAULT_S3_TIMEOUTS,
    connections: AT_ONCE,
    needsMd5: () => false,
  });
  parts.defer(() => direct.close());
  const headersOf = ({ contentType }: WholeObject): Record<string, string> => ({
    host: new URL(sink.url).host,
    'content-length': String(body.byteLength),
    'content-type': contentType,
    'if-none-match': '*',
    'x-amz-content-sha256': sha256,
    ...Object.fromEntries(Object.entries(metadata).map(([name, value]) => [`x-amz-meta-${name}`, value])),
  });
  const pathOf = ({ key }: WholeObject): string => `/${BUCKET}/${key.replaceAll('=', '%3D')}`;
  const put = (how: string, run: (one: WholeObject) => Promise<unknown>): Way => ({
    what: 'PutObject of 64 KiB, its SHA-256 known',
    how,
    count: 1_500,
    run: (index) => run(object(index)),
  });
  return [
    put('client-s3 as it comes', (one) => client.send(command(one))),
    put('client-s3 with a request handler on undici', (one) => overUndici.send(command(one))),
    put('the SDK’s signer, sent on undici: the worker', (one) => direct.put(one, true, never)),
    put('signed by hand, sent on undici', (one) =>
      putBare(pathOf(one), signedByHand(pathOf(one), headersOf(one)), body),
    ),
    put('not signed, sent on undici', (one) => putBare(pathOf(one), headersOf(one), body)),
  ];
}

async function sendByUndici(request: {
  readonly method: string;
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body?: Buffer;
}): Promise<{ response: { statusCode: number; headers: Record<string, string>; body: unknown } }> {
  const { path, headers, body } = request;
  const answer = await to.request({ method: 'PUT', path, headers, body: body ?? null });
  return {
    response: { statusCode: answer.statusCode, headers: answer.headers as Record<string, string>, body: answer.body },
  };
}

function signedByHand(path: string, headers: Record<string, string>): Record<string, string> {
  const date = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const all: Record<string, string> = { ...headers, 'x-amz-date': date };
  const names = Object.keys(all).sort();
  const signed = names.join(';');
  const lines = names.map((name) => `${name}:${all[name] ?? ''}\n`).join('');
  const request = `PUT\n${path}\n\n${lines}\n${signed}\n${all['x-amz-content-sha256'] ?? ''}`;
  const scope = `${date.slice(0, 8)}/us-east-1/s3/aws4_request`;
  const text = `AWS4-HMAC-SHA256\n${date}\n${scope}\n${createHash('sha256').update(request).digest('hex')}`;
  const signature = createHmac('sha256', 'a key of the day').update(text).digest('hex');
  const authorization = `AWS4-HMAC-SHA256 Credential=bench/${scope}, SignedHeaders=${signed}, Signature=${signature}`;
  return { ...all, authorization };
}

function putBare(
  path: string,
  headers: Record<string, string>,
  body: Dispatcher.DispatchOptions['body'],
): Promise<void> {
  return new Promise((resolve, reject) => {
    to.dispatch(
      { path, method: 'PUT', headers, body: body ?? null },
      {
        onRequestStart: () => undefined,
        onResponseStart: (_controller, status) => {
          if (status >= 300) reject(new Error(`PUT ${status}`));
        },
        onResponseData: () => undefined,
        onResponseEnd: () => resolve(),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  });
}

function getWays(size: string, count: number): Way[] {
  const sample = WORKLOADS.find(({ name }) => name === size)?.samples[0];
  const path = (index: number): string => `/cgi-bin/media/get?media_id=${sample?.name ?? ''}-${index}`;
  const get = (how: string, run: (path: string) => Promise<unknown>): Way => ({
    what: `a body of ${size} had from an origin`,
    how,
    count,
    run: (index) => run(path(index)),
  });
  return [
    get('undici’s request, its stream read in a loop', async (where) => {
      const { body } = await from.request({ path: where, method: 'GET' });
      for await (const _ of body);
    }),
    get('chunk by chunk, as the worker reads', async (where) => {
      const { body } = await openRequest(from, { path: where, method: 'GET' }, never);
      while ((await body.next()) !== undefined);
    }),
    get('undici’s dispatch, nothing done with it', (where) => {
      return new Promise<void>((resolve, reject) => {
        from.dispatch(
          { path: where, method: 'GET' },
          {
            onRequestStart: () => undefined,
            onResponseStart: () => undefined,
            onResponseData: () => undefined,
            onResponseEnd: () => resolve(),
            onResponseError: (_controller, error) => reject(error),
          },
        );
      });
    }),
  ];
}

function joinWays(): Way[] {
  const chunks = Array.from({ length: 16 }, () => Buffer.alloc(MIB / 16, 7));
  const buffers = new BodyBuffers(AT_ONCE * MIB);
  const headers = { 'content-length': String(MIB) };
  const send = (body: Dispatcher.DispatchOptions['body']): Promise<void> => putBare(`/${BUCKET}/k`, headers, body);
  const joined = (how: string, run: () => Promise<unknown>): Way => ({
    what: 'a body of 1 MiB in 16 chunks, sent on',
    how,
    count: 300,
    run,
  });
  return [
    joined('joined in fresh memory', () => {
      const whole = Buffer.allocUnsafeSlow(MIB);
      for (const [index, chunk] of chunks.entries()) whole.set(chunk, index * chunk.byteLength);
      return send(whole);
    }),
    joined('joined in memory that is used again: the worker', async () => {
      const whole = buffers.take(MIB);
      for (const [index, chunk] of chunks.entries()) whole.set(chunk, index * chunk.byteLength);
      await send(whole);
      buffers.give(whole);
    }),
    joined('not joined, chunk by chunk', () =>
      send(
        (async function* () {
          yield* chunks;
        })() as unknown as Dispatcher.DispatchOptions['body'],
      ),
    ),
    joined('in one piece already', () => send(WHOLE)),
  ];
}
