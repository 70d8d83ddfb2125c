import { createHash } from 'node:crypto';
import { PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import type { WholeObject } from './archive-store.ts';
import { type FirstTry, replayFirstTry } from './first-try.ts';
import { withPayloadHash } from './payload-hash.ts';
import { createPutRoute } from './put-route.ts';
import { etagOf } from './read-object.ts';
import { createRequestPool, isUnaskedContinue, type RequestPool } from './request-pool.ts';
import type { S3Timeouts } from './s3-client.ts';

/**
 * One PutObject, with the tries that belong to it. Returns the ETag, where the store tells it.
 *
 * @throws what the S3 client throws, or the signal's reason when it aborts.
 */
export type PutObject = (object: WholeObject, createOnly: boolean, signal: AbortSignal) => Promise<string | undefined>;

export interface DirectPutOptions {
  readonly client: S3Client;
  readonly bucket: string;
  readonly timeouts: S3Timeouts;
  /** At least the number of writes at once, or they queue for sockets. */
  readonly connections: number;
  /** True where the store must be given `Content-MD5`, since it checks nothing else. */
  readonly needsMd5: () => boolean;
  /** Told once, if the store says `100 Continue` unasked: from then on objects are the SDK's to write. */
  readonly onUnaskedContinue?: () => void;
}

export interface DirectPut {
  readonly put: PutObject;
  close(): Promise<void>;
}

/** PutObject as the SDK makes it. */
export function putBySdk(client: S3Client, bucket: string): PutObject {
  return (object, createOnly, signal) => sendBySdk(client, commandOf(object, bucket, createOnly), signal);
}

/**
 * PutObject without the SDK's middleware, which costs more than all else that is done for an object together.
 *
 * A request is signed by the SDK's own signer, with its credentials, its clock and the address that it has found out, and
 * sent over undici. Whatever is not a success is handed to the SDK as the outcome of its own first try: what it means,
 * whether and when there is another try, and what is to be learnt from it (the server's clock) is the SDK's to say, and
 * so are the further tries. A store that says `100 Continue` unasked, which undici does not take, is left to the SDK.
 */
export function createDirectPut(options: DirectPutOptions): DirectPut {
  const { client, bucket, timeouts, connections, needsMd5, onUnaskedContinue } = options;
  const findRoute = createPutRoute(client, bucket);
  let pool: RequestPool | undefined;
  /** Set for good by the first `100 Continue` that nobody asked for. */
  let saysContinue = false;

  async function put(object: WholeObject, createOnly: boolean, signal: AbortSignal): Promise<string | undefined> {
    signal.throwIfAborted();
    const route = saysContinue ? undefined : await findRoute(signal);
    // A way that is not ours to go, or that can't be found just now.
    if (route === undefined) return sendBySdk(client, commandOf(object, bucket, createOnly), signal);
    pool ??= createRequestPool(route.origin, timeouts, connections);
    const { path, headers } = await route.sign(object.key, headersOf(object, createOnly, needsMd5()));
    const tried = await pool.send({ method: 'PUT', path, headers, body: object.body }, signal);
    if (tried.type === 'answer' && tried.status >= 200 && tried.status < 300) {
      if (!pool.isSending()) object.onReleased?.();
      return etagOf(tried.headers['etag']);
    }
    if (!saysContinue && tried.type === 'fault' && isUnaskedContinue(tried.error)) {
      saysContinue = true;
      onUnaskedContinue?.();
    }
    const command = commandOf(object, bucket, createOnly);
    return sendBySdk(client, replayFirstTry(command, tried satisfies FirstTry), signal);
  }

  return { put, close: async () => pool?.close() };
}

async function sendBySdk(
  client: S3Client,
  command: PutObjectCommand,
  signal: AbortSignal,
): Promise<string | undefined> {
  return etagOf((await client.send(command, { abortSignal: signal })).ETag);
}

function commandOf(
  { key, body, contentType, metadata, digest }: WholeObject,
  bucket: string,
  createOnly: boolean,
): PutObjectCommand {
  const command = new PutObjectCommand({
    Bucket: bucket,
    Key: key,
    Body: body,
    ContentLength: digest.sizeBytes,
    ContentType: contentType,
    Metadata: { ...metadata },
    ...(createOnly ? { IfNoneMatch: '*' } : {}),
  });
  return withPayloadHash(command, digest.sha256);
}

/** The same as the SDK makes of the command. */
function headersOf(
  { body, contentType, metadata, digest }: WholeObject,
  createOnly: boolean,
  withMd5: boolean,
): Record<string, string> {
  const headers: Record<string, string> = {
    'content-length': String(digest.sizeBytes),
    'content-type': contentType,
    'x-amz-content-sha256': digest.sha256,
  };
  if (createOnly) headers['if-none-match'] = '*';
  if (withMd5) headers['content-md5'] = createHash('md5').update(body).digest('base64');
  for (const name in metadata) headers[headerOf(name)] = metadata[name] ?? '';
  return headers;
}

/** By the name in the metadata: those are ours and few, and a string that is made anew has to be looked up among all names. */
const headerNames = new Map<string, string>();

function headerOf(name: string): string {
  const known = headerNames.get(name);
  if (known !== undefined) return known;
  const header = `x-amz-meta-${name.toLowerCase()}`;
  headerNames.set(name, header);
  return header;
}
