import type { Socket } from 'node:net';
import { buildConnector, type Dispatcher, errors, Pool } from 'undici';
import type { FirstTry } from './first-try.ts';
import type { S3Timeouts } from './s3-client.ts';

export interface PoolRequest {
  readonly method: 'PUT';
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

/** Connections to one origin. */
export interface RequestPool {
  /** Sends a request once. @throws the signal's reason when it aborts. */
  send(request: PoolRequest, signal: AbortSignal): Promise<FirstTry>;
  /** True while the kernel has not taken all that was to be sent, of any request: an answer may come before that. */
  isSending(): boolean;
  close(): Promise<void>;
}

/** An error of S3 has a few hundred bytes. What is longer is not read on. */
const MAX_ANSWER_BYTES = 64 * 1024;

export function createRequestPool(origin: URL, timeouts: S3Timeouts, connections: number): RequestPool {
  const sockets = new Set<Socket>();
  const pool = new Pool(origin, {
    connections,
    allowH2: false,
    connect: createConnector(timeouts, sockets),
    headersTimeout: timeouts.responseMs,
    bodyTimeout: timeouts.idleMs,
  });
  return {
    send: async (request, signal) => {
      signal.throwIfAborted();
      return new Promise((resolve, reject) => {
        pool.dispatch(request as Dispatcher.DispatchOptions, answerHandler(signal, resolve, reject));
      });
    },
    isSending: () => {
      for (const socket of sockets) if (socket.writableLength > 0) return true;
      return false;
    },
    close: () => pool.destroy(),
  };
}

/**
 * True when a request was broken off because the store said `100 Continue` unasked. undici takes that for a broken answer,
 * can't be told otherwise, and tells it from others by its message only.
 *
 * @see https://github.com/nodejs/undici/blob/v8.12.4/lib/dispatcher/client-h1.js#L649
 */
export function isUnaskedContinue({ cause }: Error): boolean {
  return cause instanceof errors.SocketError && cause.message === 'bad response';
}

/** Sockets that are given up once no byte has passed for a while: undici's own limits rest while a body is being sent. */
function createConnector({ connectMs, idleMs }: S3Timeouts, sockets: Set<Socket>): buildConnector.connector {
  const connect = buildConnector({ timeout: connectMs, allowH2: false });
  return (options, callback) => {
    connect(options, (...[error, socket]) => {
      if (error !== null) {
        callback(error, null);
        return;
      }
      socket.setTimeout(idleMs, () =>
        socket.destroy(Object.assign(new Error('no byte passed'), { code: 'ETIMEDOUT' })),
      );
      sockets.add(socket);
      socket.once('close', () => sockets.delete(socket));
      callback(null, socket);
    });
  };
}

function answerHandler(
  signal: AbortSignal,
  resolve: (tried: FirstTry) => void,
  reject: (reason: unknown) => void,
): Dispatcher.DispatchHandler {
  let controller: Dispatcher.DispatchController | undefined;
  let status = 0;
  let headers: Readonly<Record<string, string>> = {};
  const body: Buffer[] = [];
  let sizeBytes = 0;
  const onAbort = (): void => {
    controller?.abort(asError(signal.reason));
    reject(signal.reason);
  };
  signal.addEventListener('abort', onAbort, { once: true });
  const answered = (): void => {
    signal.removeEventListener('abort', onAbort);
    resolve({ type: 'answer', status, headers, body: Buffer.concat(body, sizeBytes) });
  };

  return {
    onRequestStart: (started) => {
      controller = started;
      if (signal.aborted) started.abort(asError(signal.reason));
    },
    onResponseStart: (_controller, code, received) => {
      status = code;
      headers = received as Readonly<Record<string, string>>;
    },
    onResponseData: (receiving, chunk) => {
      body.push(chunk);
      sizeBytes += chunk.byteLength;
      if (sizeBytes <= MAX_ANSWER_BYTES) return;
      answered();
      receiving.abort(new Error('answer too long'));
    },
    onResponseEnd: answered,
    onResponseError: (_controller, error) => {
      signal.removeEventListener('abort', onAbort);
      resolve({ type: 'fault', error: asSdkError(error) });
    },
  };
}

function asError(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('aborted');
}

/**
 * An error as the SDK's own request handler throws it: by the code of a socket, or as a timeout. undici names its own
 * (a socket that was closed, no answer in time) by codes that the SDK does not know.
 */
function asSdkError(error: Error): Error {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (!code.startsWith('UND_ERR')) return error;
  const timeout = new Error(code, { cause: error });
  timeout.name = 'TimeoutError';
  return timeout;
}
