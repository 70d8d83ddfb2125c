import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { appendFile, readFile, rename, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { answerParent } from '../helper-process.ts';
import { mediaOf, type Sample } from './rows.ts';

export type StoreAsk =
  | { readonly type: 'address' }
  /** Lists the media of a sample from now on, without their bytes. */
  | { readonly type: 'media'; readonly sample: Sample }
  /** Objects of the catalog. */
  | { readonly type: 'files'; readonly prefix: string };

export interface StoreAnswer {
  readonly url: string;
  readonly files: readonly { readonly key: string; readonly sizeBytes: number }[];
  readonly requests: number;
}

/**
 * As much of S3 as the catalog needs, in a process of its own: what is put lies on disk, in the folder that is the first
 * argument, and media are listed that nobody has put.
 */
const folder = process.argv[2] ?? '';
const PAGE = 1_000;

interface Stored {
  readonly path: string;
  readonly sizeBytes: number;
  readonly etag: string;
}

const stored = new Map<string, Stored>();
const uploads = new Map<string, Map<number, Stored>>();
let media: string[] = [];
let written: string[] | undefined = [];
let requests = 0;

const server = createServer((request, response) => {
  requests += 1;
  serve(request, response).catch(() => response.destroy());
});
const { promise, resolve } = Promise.withResolvers<void>();
server.listen(0, '127.0.0.1', resolve);
await promise;
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

answerParent<StoreAsk, StoreAnswer>((question) => {
  if (question.type === 'media') {
    const { sample } = question;
    media = Array.from({ length: sample.rows }, (_, index) => mediaOf(index, sample).key).sort();
  }
  const prefix = question.type === 'files' ? question.prefix : undefined;
  const files = [...stored].flatMap(([key, { sizeBytes }]) =>
    prefix !== undefined && key.startsWith(prefix) ? { key, sizeBytes } : [],
  );
  return { url, files, requests };
});

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname, searchParams: query } = new URL(request.url ?? '/', url);
  const key = decodeURIComponent(pathname.split('/').slice(2).join('/'));
  const xml = (status: number, body: string): void => {
    response.writeHead(status, { 'content-type': 'application/xml' }).end(body);
  };
  const uploadId = query.get('uploadId') ?? '';
  const object = stored.get(key);
  switch (request.method) {
    case 'PUT': {
      const body = await keep(request);
      if (uploadId === '') set(key, body);
      else uploads.get(uploadId)?.set(Number(query.get('partNumber')), body);
      response.writeHead(200, { etag: `"${body.etag}"` }).end();
      return;
    }
    case 'POST': {
      if (query.has('uploads')) {
        const id = randomUUID();
        uploads.set(id, new Map());
        return xml(200, `<InitiateMultipartUploadResult><UploadId>${id}</UploadId></InitiateMultipartUploadResult>`);
      }
      const whole = await joined(uploads.get(uploadId) ?? new Map());
      uploads.delete(uploadId);
      set(key, whole);
      return xml(200, `<CompleteMultipartUploadResult><ETag>"${whole.etag}"</ETag></CompleteMultipartUploadResult>`);
    }
    case 'DELETE':
      if (object !== undefined) {
        stored.delete(key);
        written = undefined;
        await rm(object.path, { force: true });
      }
      response.writeHead(204).end();
      return;
    default: {
      if (key === '') return xml(200, listing(query));
      if (object === undefined) return xml(404, '<Error><Code>NoSuchKey</Code></Error>');
      response.writeHead(200, {
        'content-length': object.sizeBytes,
        etag: `"${object.etag}"`,
        'last-modified': new Date().toUTCString(),
      });
      if (request.method === 'HEAD') response.end();
      else await pipeline(createReadStream(object.path), response);
    }
  }
}

function set(key: string, object: Stored): void {
  const before = stored.get(key);
  if (before === undefined) written = undefined;
  else void rm(before.path, { force: true });
  stored.set(key, object);
}

async function keep(request: IncomingMessage): Promise<Stored> {
  const hash = createHash('md5');
  let sizeBytes = 0;
  const path = join(folder, randomUUID());
  await pipeline(
    request,
    async function* (chunks: AsyncIterable<Buffer>) {
      for await (const chunk of chunks) {
        hash.update(chunk);
        sizeBytes += chunk.byteLength;
        yield chunk;
      }
    },
    createWriteStream(path),
  );
  return { path, sizeBytes, etag: hash.digest('hex') };
}

async function joined(parts: ReadonlyMap<number, Stored>): Promise<Stored> {
  const inOrder = [...parts].toSorted(([a], [b]) => a - b).map(([, part]) => part);
  const path = join(folder, randomUUID());
  for (const part of inOrder) {
    await appendFile(`${path}.part`, await readFile(part.path));
    await rm(part.path);
  }
  await rename(`${path}.part`, path);
  const sizeBytes = inOrder.reduce((sum, part) => sum + part.sizeBytes, 0);
  return { path, sizeBytes, etag: `${inOrder.length}-parts` };
}

/** @see https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html */
function listing(query: URLSearchParams): string {
  const prefix = query.get('prefix') ?? '';
  const delimiter = query.get('delimiter') ?? '';
  let after = query.get('continuation-token') ?? query.get('start-after') ?? '';
  written ??= [...stored.keys()].sort();
  const rows: string[] = [];
  let last = '';
  for (let count = 0; ; count += 1) {
    const key = firstOf([firstBehind(media, prefix, after), firstBehind(written, prefix, after)]);
    if (key === undefined) break;
    if (count === PAGE) {
      const next = `<IsTruncated>true</IsTruncated><NextContinuationToken>${last}</NextContinuationToken>`;
      return `<ListBucketResult>${next}${rows.join('')}</ListBucketResult>`;
    }
    const cut = delimiter === '' ? -1 : key.indexOf(delimiter, prefix.length);
    if (cut === -1) {
      const { sizeBytes, etag } = stored.get(key) ?? { sizeBytes: 100_000, etag: '0123456789abcdef0123456789abcdef' };
      rows.push(
        `<Contents><Key>${key}</Key><Size>${sizeBytes}</Size><ETag>"${etag}"</ETag><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>`,
      );
      last = key;
    } else {
      const folderName = key.slice(0, cut + delimiter.length);
      rows.push(`<CommonPrefixes><Prefix>${folderName}</Prefix></CommonPrefixes>`);
      last = `${folderName}\u{10ffff}`;
    }
    after = last;
  }
  return `<ListBucketResult><IsTruncated>false</IsTruncated>${rows.join('')}</ListBucketResult>`;
}

function firstOf(keys: readonly (string | undefined)[]): string | undefined {
  return keys.filter((key) => key !== undefined).sort()[0];
}

/** The first key with a prefix that comes behind another, of keys in order. */
function firstBehind(keys: readonly string[], prefix: string, after: string): string | undefined {
  let [from, to] = [0, keys.length];
  while (from < to) {
    const middle = (from + to) >> 1;
    const key = keys[middle] ?? '';
    if (key < prefix || key <= after) from = middle + 1;
    else to = middle;
  }
  const key = keys[from];
  return key?.startsWith(prefix) === true ? key : undefined;
}
