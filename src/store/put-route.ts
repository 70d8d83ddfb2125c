import { createHmac, createSecretKey, hash, type KeyObject } from 'node:crypto';
import { PutObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { SignatureV4 } from '@smithy/signature-v4';

/** Where objects of a bucket are put, and how a request for that is signed. */
export interface PutRoute {
  readonly origin: URL;
  /** Signs a PutObject. @param headers with `x-amz-content-sha256`; names in lower case. */
  sign(key: string, headers: Record<string, string>): Promise<SignedPut>;
}

export interface SignedPut {
  readonly path: string;
  readonly headers: Record<string, string>;
}

/** What the SDK would send. */
interface SampleRequest {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number;
  readonly path: string;
  readonly headers: Record<string, string>;
}

/** Any key will do whose last character stands in the path as it is. */
const SAMPLE_KEY = 'k';

/** A plain signature of S3. A bucket that wants another one (S3 Express, multi-region access points) is the SDK's. */
const S3_SCOPE = /^AWS4-HMAC-SHA256 Credential=[^,]+\/\d{8}\/([^/,]+)\/s3\/aws4_request,/;

/**
 * Finds out once where the SDK sends the objects of a bucket, by having it make a request that is not sent: endpoint,
 * virtual host or path style, region and whatever else it knows of.
 *
 * @returns a function that gives the route; `undefined` while it can't be had (no credentials) and for buckets that ask
 *   for more than a plain signature.
 */
export function createPutRoute(
  client: S3Client,
  bucket: string,
): (signal: AbortSignal) => Promise<PutRoute | undefined> {
  /** `null`: not ours to go. */
  let route: PutRoute | null | undefined;
  return async (signal) => {
    if (route === undefined) {
      const sample = await sampleRequest(client, bucket, signal);
      if (sample !== undefined) route = routeOf(sample, client) ?? null;
    }
    return route ?? undefined;
  };
}

async function sampleRequest(
  client: S3Client,
  bucket: string,
  signal: AbortSignal,
): Promise<SampleRequest | undefined> {
  const command = new PutObjectCommand({ Bucket: bucket, Key: SAMPLE_KEY, Body: new Uint8Array() });
  let sample: SampleRequest | undefined;
  command.middlewareStack.add(
    () => async (args) => {
      sample = args.request as SampleRequest;
      return { response: undefined, output: { $metadata: {} } };
    },
    // After the signature.
    { step: 'finalizeRequest', priority: 'low', name: 'sampleRequest' },
  );
  // Whatever is wrong is met again by the SDK, which says so.
  await client.send(command, { abortSignal: signal }).catch(() => undefined);
  return sample;
}

function routeOf(sample: SampleRequest, client: S3Client): PutRoute | undefined {
  const { protocol, hostname, port, path, headers: sampled } = sample;
  const region = S3_SCOPE.exec(sampled['authorization'] ?? '')?.[1];
  if (region === undefined || 'x-amz-s3session-token' in sampled || !path.endsWith(`/${SAMPLE_KEY}`)) return undefined;
  const origin = new URL(`${protocol}//${hostname}${port === undefined ? '' : `:${port}`}`);
  const folder = path.slice(0, -SAMPLE_KEY.length);
  const { config } = client;
  const signer = new SignatureV4({
    credentials: config.credentials,
    region,
    service: 's3',
    sha256: sha256For(),
    uriEscapePath: false,
    applyChecksum: false,
  });
  const common = {
    host: sampled['host'] ?? origin.host,
    ...(sampled['user-agent'] === undefined ? {} : { 'user-agent': sampled['user-agent'] }),
  };
  return {
    origin,
    async sign(key, headers) {
      const request = {
        method: 'PUT',
        protocol,
        hostname,
        path: folder + encodedKey(key),
        query: {},
        headers: { ...common, ...headers },
      };
      // Kept right by the SDK, from the dates of the server's answers.
      const signingDate = new Date(Date.now() + config.systemClockOffset);
      const signed = await signer.sign(request, { signingDate });
      return { path: request.path, headers: signed.headers };
    },
  };
}

/** As S3 wants it for a signature: all but unreserved characters, and the slashes between folders. */
function encodedKey(key: string): string {
  return encodeURIComponent(key)
    .replaceAll('%2F', '/')
    .replace(/[!'()*]/g, (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`);
}

type HashInput = string | ArrayBuffer | ArrayBufferView;

/**
 * SHA-256 for one signer, as Node has it, without detours: it is needed three times a request.
 *
 * The signer hashes the credentials for each request, to look its key of the day up by that; the last hash is kept. The key
 * it shows as the same bytes each time, and to make a key of them costs more than its use.
 */
function sha256For(): new (
  secret?: HashInput,
) => { update(data: Uint8Array): void; digest(): Promise<Uint8Array>; reset(): void } {
  let last: { readonly secret: string; readonly data: Uint8Array; readonly digest: Uint8Array } | undefined;
  const keys = new WeakMap<object, KeyObject>();

  function ofSecret(secret: string, data: Uint8Array): Uint8Array {
    if (last === undefined || last.secret !== secret || Buffer.compare(last.data, data) !== 0)
      last = { secret, data, digest: createHmac('sha256', secret).update(data).digest() };
    return last.digest;
  }

  function keyOf(secret: Exclude<HashInput, string>): KeyObject {
    const known = keys.get(secret);
    if (known !== undefined) return known;
    const key = createSecretKey(secret instanceof ArrayBuffer ? new Uint8Array(secret) : (secret as Uint8Array));
    keys.set(secret, key);
    return key;
  }

  return class NodeSha256 {
    readonly #secret: HashInput | undefined;
    readonly #pieces: Uint8Array[] = [];

    constructor(secret?: HashInput) {
      this.#secret = secret;
    }

    update(data: Uint8Array): void {
      this.#pieces.push(data);
    }

    async digest(): Promise<Uint8Array> {
      const [first = new Uint8Array(), ...more] = this.#pieces;
      const data = more.length === 0 ? first : Buffer.concat(this.#pieces);
      const secret = this.#secret;
      if (secret === undefined) return hash('sha256', data, 'buffer');
      if (typeof secret === 'string') return ofSecret(secret, data);
      return createHmac('sha256', keyOf(secret)).update(data).digest();
    }

    reset(): void {
      this.#pieces.length = 0;
    }
  };
}
