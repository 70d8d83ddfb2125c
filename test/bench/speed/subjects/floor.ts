/** The least that Node can do: GET, SHA-256, a PUT that is signed by hand. No queue, no checks, no second try. */
import { createHash, createHmac } from 'node:crypto';
import { Pool } from 'undici';
import { keyOf, mediaPath, places, serveLoop } from './subject.ts';

const { origin, store, bucket, accessKeyId, secretAccessKey, concurrency } = places();
const from = new Pool(origin, { connections: concurrency });
const to = new Pool(store, { connections: concurrency });
const { host } = new URL(store);
const SIGNED = 'host;x-amz-content-sha256;x-amz-date';

serveLoop(concurrency, async (mediaId) => {
  const { chunks, sha256, sizeBytes } = await get(mediaPath(mediaId));
  const path = `/${bucket}/${keyOf(mediaId)}`;
  const date = new Date().toISOString().replace(/[-:]|\.\d+/g, '');
  const headers = {
    host,
    'content-length': String(sizeBytes),
    'content-type': 'image/jpeg',
    'x-amz-content-sha256': sha256,
    'x-amz-date': date,
    authorization: authorization(path, sha256, date),
  };
  await put(path, headers, chunks.length === 1 ? (chunks[0] ?? Buffer.alloc(0)) : Buffer.concat(chunks, sizeBytes));
});

function get(path: string): Promise<{ chunks: Buffer[]; sha256: string; sizeBytes: number }> {
  return new Promise((resolve, reject) => {
    const hash = createHash('sha256');
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    from.dispatch(
      { path, method: 'GET' },
      {
        onRequestStart: () => undefined,
        onResponseStart: (_controller, status) => {
          if (status !== 200) reject(new Error(`GET ${status}`));
        },
        onResponseData: (_controller, chunk) => {
          hash.update(chunk);
          sizeBytes += chunk.byteLength;
          chunks.push(chunk);
        },
        onResponseEnd: () => resolve({ chunks, sha256: hash.digest('hex'), sizeBytes }),
        onResponseError: (_controller, error) => reject(error),
      },
    );
  });
}

function put(path: string, headers: Record<string, string>, body: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    to.dispatch(
      { path, method: 'PUT', headers, body },
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

let keyDay = '';
let signingKey: Buffer = Buffer.alloc(0);

function authorization(path: string, sha256: string, date: string): string {
  const day = date.slice(0, 8);
  const scope = `${day}/us-east-1/s3/aws4_request`;
  if (day !== keyDay) {
    const scopes = [day, 'us-east-1', 's3', 'aws4_request'];
    signingKey = scopes.reduce(
      (key: Buffer, part) => createHmac('sha256', key).update(part).digest(),
      Buffer.from(`AWS4${secretAccessKey}`),
    );
    keyDay = day;
  }
  const request = `PUT\n${path}\n\nhost:${host}\nx-amz-content-sha256:${sha256}\nx-amz-date:${date}\n\n${SIGNED}\n${sha256}`;
  const hashed = createHash('sha256').update(request).digest('hex');
  const signature = createHmac('sha256', signingKey)
    .update(`AWS4-HMAC-SHA256\n${date}\n${scope}\n${hashed}`)
    .digest('hex');
  return `AWS4-HMAC-SHA256 Credential=${accessKeyId}/${scope}, SignedHeaders=${SIGNED}, Signature=${signature}`;
}
