import { createHash, randomBytes, randomUUID } from 'node:crypto';
import {
  CreateBucketCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  NoSuchKey,
  type S3Client,
} from '@aws-sdk/client-s3';
import { startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import { Secret } from '../../src/secret.ts';
import type { ArchiveStore, StreamedObject, WholeObject } from '../../src/store/archive-store.ts';
import { addContentMd5 } from '../../src/store/content-md5.ts';
import { createDirectPut } from '../../src/store/put-object.ts';
import { createS3Client, DEFAULT_S3_TIMEOUTS, type S3Timeouts } from '../../src/store/s3-client.ts';
import { createS3Store } from '../../src/store/s3-store.ts';
import { type FaultProxy, type FaultProxyOptions, startFaultProxy } from './fault-proxy.ts';

/** The smallest that S3 allows. */
export const PART_SIZE_BYTES = 5 * 1024 * 1024;

/** An S3 server with an empty bucket, and what it is known to do. */
export interface S3Backend extends AsyncDisposable {
  readonly endpoint: string;
  readonly bucket: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Honours If-None-Match on PutObject. */
  readonly createOnly: boolean;
  /** Refuses a body that is not the one that was signed. */
  readonly checksPayload: boolean;
  /** Tells which multipart uploads are open. */
  readonly listsUploads: boolean;
  /** Keeps versions where a bucket is told to. */
  readonly keepsVersions: boolean;
}

/** The S3 server in this process: quick, and less strict than a real one. */
export async function openEmbeddedBackend(): Promise<S3Backend> {
  const { endpoint, bucket, stop } = await startEmbeddedS3('weixin-media');
  return {
    endpoint,
    bucket,
    accessKeyId: 'test',
    secretAccessKey: 'the-secret-key-of-the-store',
    createOnly: false,
    checksPayload: false,
    listsUploads: false,
    keepsVersions: false,
    [Symbol.asyncDispose]: stop,
  };
}

/** A server that runs already and does all that S3 does; in a bucket of its own. */
export async function openGatewayBackend(
  gateway: Pick<S3Backend, 'endpoint' | 'accessKeyId' | 'secretAccessKey'>,
): Promise<S3Backend> {
  const backend = {
    ...gateway,
    bucket: `weixin-media-${randomUUID()}`,
    createOnly: true,
    checksPayload: true,
    listsUploads: true,
    keepsVersions: true,
    [Symbol.asyncDispose]: async () => undefined,
  };
  const client = clientOf(backend);
  await client.send(new CreateBucketCommand({ Bucket: backend.bucket }));
  client.destroy();
  return backend;
}

export function clientOf(
  { bucket, accessKeyId, secretAccessKey, ...backend }: S3Backend,
  { endpoint = backend.endpoint, timeouts }: { readonly endpoint?: string; readonly timeouts?: S3Timeouts } = {},
): S3Client {
  const credentials = { accessKeyId, secretAccessKey: new Secret(secretAccessKey) };
  const config = { bucket, endpoint, partSizeBytes: PART_SIZE_BYTES, forcePathStyle: true, credentials };
  return createS3Client({ ...config, ...(timeouts === undefined ? {} : { timeouts }) }, 16);
}

/** A store behind a way on which things can go wrong, and a look at the bucket that goes around it. */
export interface StoreBench extends AsyncDisposable {
  readonly backend: S3Backend;
  readonly proxy: FaultProxy;
  readonly store: ArchiveStore;
  /** What the store works with. */
  readonly client: S3Client;
  /** Around the proxy. */
  readonly direct: S3Client;
  /** The bytes of an object, read around the proxy. */
  bytesAt(key: string): Promise<Buffer | undefined>;
  /** The ETag of an object without its quotes, asked for around the proxy. */
  etagAt(key: string): Promise<string | undefined>;
  /** The keys of the multipart uploads below a prefix that the server keeps open; one that can't tell is watched. */
  openUploads(prefix?: string): Promise<string[]>;
}

export interface StoreBenchOptions extends FaultProxyOptions {
  readonly timeouts?: S3Timeouts;
  readonly contentMd5?: boolean;
}

export async function openStoreBench(
  backend: S3Backend,
  { timeouts, contentMd5 = false, ...proxyOptions }: StoreBenchOptions = {},
): Promise<StoreBench> {
  const proxy = await startFaultProxy(backend.endpoint, proxyOptions);
  const client = clientOf(backend, { endpoint: proxy.endpoint, ...(timeouts === undefined ? {} : { timeouts }) });
  if (contentMd5) addContentMd5(client);
  const direct = clientOf(backend);
  const { bucket } = backend;
  const puts = createDirectPut({
    client,
    bucket,
    timeouts: timeouts ?? DEFAULT_S3_TIMEOUTS,
    connections: 16,
    needsMd5: () => contentMd5,
  });
  return {
    backend,
    proxy,
    client,
    direct,
    store: createS3Store({ client, bucket, partSizeBytes: PART_SIZE_BYTES, put: puts.put }),
    bytesAt: async (key) => {
      try {
        const { Body } = await direct.send(new GetObjectCommand({ Bucket: bucket, Key: key }));
        return Buffer.from((await Body?.transformToByteArray()) ?? []);
      } catch (error) {
        if (error instanceof NoSuchKey) return undefined;
        throw error;
      }
    },
    etagAt: async (key) => {
      const { ETag } = await direct.send(new HeadObjectCommand({ Bucket: bucket, Key: key }));
      return ETag?.replaceAll('"', '');
    },
    openUploads: async (prefix = '') => {
      if (!backend.listsUploads) return proxy.openUploads().filter((key) => key.startsWith(prefix));
      const { Uploads = [] } = await direct.send(new ListMultipartUploadsCommand({ Bucket: bucket, Prefix: prefix }));
      return Uploads.map(({ Key = '' }) => Key);
    },
    [Symbol.asyncDispose]: async () => {
      await puts.close();
      client.destroy();
      direct.destroy();
      await proxy[Symbol.asyncDispose]();
    },
  };
}

export function sha256Of(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** A key that no other test uses. */
export function newKey(): string {
  return `media/app=wx0123456789abcdef/kind=image/dt=2026-06-15/${randomUUID()}.jpg`;
}

/** An object in memory. Each one is written at another time, so that it is told apart from the next. */
export function wholeObject(body: Uint8Array, fields: Partial<WholeObject> = {}): WholeObject {
  const digest = { sizeBytes: body.byteLength, sha256: sha256Of(body) };
  const metadata = { 'archived-at': nextInstant(), sha256: digest.sha256 };
  return { key: newKey(), contentType: 'image/jpeg', metadata, body, digest, ...fields };
}

/** An object whose bytes are on their way, in chunks as a socket gives them. */
export function streamedObject(
  source: Uint8Array | (() => AsyncIterable<Uint8Array>),
  fields: Partial<StreamedObject> = {},
): StreamedObject {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let sha256: string | undefined;
  async function* chunks(): AsyncIterable<Uint8Array> {
    for await (const chunk of typeof source === 'function' ? source() : chunksOf(source)) {
      hash.update(chunk);
      sizeBytes += chunk.byteLength;
      yield chunk;
    }
  }
  return {
    key: newKey(),
    contentType: 'video/mp4',
    metadata: { 'archived-at': nextInstant() },
    chunks: chunks(),
    digest: () => {
      sha256 ??= hash.digest('hex');
      return { sizeBytes, sha256 };
    },
    ...fields,
  };
}

const CHUNK_BYTES = 64 * 1024;

export async function* chunksOf(bytes: Uint8Array, chunkBytes = CHUNK_BYTES): AsyncIterable<Uint8Array> {
  for (let from = 0; from < bytes.byteLength; from += chunkBytes) yield bytes.subarray(from, from + chunkBytes);
}

export function someBytes(sizeBytes: number): Buffer {
  return randomBytes(sizeBytes);
}

let instant = Date.parse('2026-06-15T12:00:00.000Z');

function nextInstant(): string {
  instant += 1;
  return new Date(instant).toISOString();
}
