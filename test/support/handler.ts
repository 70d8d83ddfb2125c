import { createServer, type IncomingHttpHeaders, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** A request that the handler was sent. */
export interface HandledRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

/** An operator's own handler of messages, over real HTTP on loopback. */
export interface TestHandler extends AsyncDisposable {
  readonly url: string;
  readonly requests: HandledRequest[];
  /** How it answers; it may leave that. Default: `success`. */
  answer: (response: ServerResponse, request: HandledRequest) => void;
  /** Ends its connections, and takes no more. */
  close(): Promise<void>;
}

export async function startTestHandler(): Promise<TestHandler> {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { method = '', url = '', headers } = request;
      const handled = { method, url, headers, body: Buffer.concat(chunks) };
      handler.requests.push(handled);
      handler.answer(response, handled);
    });
  });
  const listening = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', listening.resolve);
  await listening.promise;
  const close = async (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    server.close(() => resolve());
    server.closeAllConnections();
    await promise;
  };
  const handler: TestHandler = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: [],
    answer: (response) => response.end('success'),
    close,
    [Symbol.asyncDispose]: close,
  };
  return handler;
}
