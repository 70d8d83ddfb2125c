import { createServer, type IncomingMessage, request, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import type { StackOptions } from '../support/stack.ts';

export const S3_SECRET = 'the-secret-key-of-the-store';

/** What the store answers in place of the honest answer. */
export interface StoreTrouble {
  readonly status: number;
  /** An error code of S3's. */
  readonly code: string;
  /** Where the bucket is said to lie. */
  readonly region?: string;
}

/** An S3 server behind a door that counts what passes, can be shut, and can answer in its place. */
export interface S3Door extends AsyncDisposable {
  /** For `openStack`. */
  readonly gateway: NonNullable<StackOptions['gateway']>;
  /** Multipart uploads that have been begun and neither completed nor aborted. The embedded server can't list them. */
  readonly openUploads: ReadonlySet<string>;
  /** Refuses connections and breaks those that stand. */
  shut(): Promise<void>;
  open(): Promise<void>;
  /** Answers so, to every request with one of these methods, until told otherwise. */
  answer(trouble: StoreTrouble | undefined, methods?: readonly string[]): void;
}

export async function openS3Door(): Promise<S3Door> {
  const s3 = await startEmbeddedS3('behind-the-door');
  const openUploads = new Set<string>();
  let trouble: StoreTrouble | undefined;
  let troubled: readonly string[] | undefined;

  const handle = (incoming: IncomingMessage, answer: ServerResponse): void => {
    const { method = 'GET', headers } = incoming;
    const url = new URL(incoming.url ?? '/', s3.endpoint);
    if (trouble !== undefined && (troubled ?? [method]).includes(method)) {
      incoming.resume();
      const { region } = trouble;
      const elsewhere = region === undefined ? {} : { 'x-amz-bucket-region': region };
      answer.writeHead(trouble.status, { 'content-type': 'application/xml', ...elsewhere });
      answer.end(method === 'HEAD' ? undefined : `<Error><Code>${trouble.code}</Code></Error>`);
      return;
    }
    const outgoing = request(url, { method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', () => answer.destroy());
      response.on('end', () => {
        const body = Buffer.concat(chunks);
        if ((response.statusCode ?? 500) < 300) noteUpload(method, url, body);
        answer.writeHead(response.statusCode ?? 500, response.headers).end(body);
      });
    });
    outgoing.on('error', () => answer.destroy());
    incoming.on('aborted', () => outgoing.destroy());
    incoming.pipe(outgoing);
  };

  const noteUpload = (method: string, url: URL, body: Buffer): void => {
    const uploadId = url.searchParams.get('uploadId');
    if (method === 'POST' && url.searchParams.has('uploads')) {
      const begun = /<UploadId>([^<]+)</.exec(body.toString())?.[1];
      if (begun !== undefined) openUploads.add(begun);
    } else if (uploadId !== null && (method === 'POST' || method === 'DELETE')) openUploads.delete(uploadId);
  };

  let server = await listen(createServer(handle), 0);
  const { port } = server.address() as AddressInfo;
  const shut = async (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    server.close(() => resolve());
    server.closeAllConnections();
    await promise;
  };
  return {
    gateway: { endpoint: `http://127.0.0.1:${port}`, accessKeyId: 'test', secretAccessKey: S3_SECRET },
    openUploads,
    shut,
    open: async () => {
      server = await listen(createServer(handle), port);
    },
    answer: (next, methods) => {
      trouble = next;
      troubled = methods;
    },
    [Symbol.asyncDispose]: async () => {
      await shut();
      await s3.stop();
    },
  };
}

async function listen(server: Server, port: number): Promise<Server> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, '127.0.0.1', resolve);
  await promise;
  return server;
}
