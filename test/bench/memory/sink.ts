import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { SECOND } from '../../../src/time.ts';
import { answerParent } from '../helper-process.ts';

/** How fast the sink reads from each connection from now on; absent: as fast as bytes come. */
export interface SinkAsk {
  readonly bytesPerSecond?: number;
}

export interface SinkAnswer {
  readonly url: string;
}

/**
 * An S3 server in a process of its own that checks the hash of what it is sent, as a good store does, and forgets it:
 * gigabytes pass through it, and nothing that the worker asks for is ever there.
 */
let bytesPerSecond: number | undefined;

const server = createServer((request, response) => {
  serve(request, response).catch(() => response.destroy());
});
const { promise, resolve } = Promise.withResolvers<void>();
server.listen(0, '127.0.0.1', resolve);
await promise;
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

answerParent<SinkAsk, SinkAnswer>((question) => {
  bytesPerSecond = question.bytesPerSecond;
  return { url };
});

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const sha256 = await swallow(request);
  const announced = request.headers['x-amz-content-sha256'];
  const { searchParams } = new URL(request.url ?? '/', url);
  const xml = (status: number, body: string): void => {
    response.writeHead(status, { 'content-type': 'application/xml' }).end(body);
  };
  switch (request.method) {
    case 'PUT':
      if (typeof announced === 'string' && /^[0-9a-f]{64}$/.test(announced) && announced !== sha256)
        return xml(400, '<Error><Code>XAmzContentSHA256Mismatch</Code></Error>');
      response.writeHead(200, { etag: `"${sha256.slice(0, 32)}"` }).end();
      return;
    case 'POST':
      return xml(
        200,
        searchParams.has('uploads')
          ? '<InitiateMultipartUploadResult><UploadId>an-upload</UploadId></InitiateMultipartUploadResult>'
          : '<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>',
      );
    case 'GET':
      return xml(200, searchParams.has('uploads') ? '<ListMultipartUploadsResult/>' : '<ListBucketResult/>');
    default:
      response.writeHead(request.method === 'DELETE' ? 204 : 404).end();
  }
}

/** Reads a body at the wanted pace and returns its SHA-256 in lower-case hexadecimal. */
async function swallow(request: IncomingMessage): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of request as AsyncIterable<Buffer>) {
    hash.update(chunk);
    if (bytesPerSecond !== undefined) await sleep((chunk.byteLength / bytesPerSecond) * SECOND);
  }
  return hash.digest('hex');
}
