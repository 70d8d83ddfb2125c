import type { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';

/** Bytes on their way, had one chunk at a time. */
export interface ByteSource {
  /** `undefined` at the end. Asked once at a time. @throws what broke it off. */
  next(): Promise<Buffer | undefined>;
  /** Drops what was not read, and the connection with it. Harmless after the end. */
  discard(): void;
}

/** An answer whose head has come. */
export interface Response {
  readonly statusCode: number;
  readonly headers: Dispatcher.ResponseData['headers'];
  readonly body: ByteSource;
}

/** Memory that is held while nobody asks for it; then the socket is left to wait. */
const HELD_BYTES = 128 * 1024;
/** What a chunk needs beside its bytes. */
const CHUNK_BYTES = 128;
/** Chunks that are smaller, on the average. */
const CRUMB_BYTES = 4 * 1024;

/**
 * Sends a request. The same as undici's own `request`, without a Readable between a socket and its reader: of what a small
 * body costs, that is a fifth.
 *
 * @throws what undici throws, or the signal's reason when it aborts; so does the body.
 */
export function openRequest(
  dispatcher: Dispatcher,
  options: Dispatcher.DispatchOptions,
  signal: AbortSignal,
): Promise<Response> {
  const reader = new ResponseReader(signal);
  try {
    dispatcher.dispatch(options, reader);
  } catch (error) {
    reader.fail(error);
  }
  return reader.head.promise;
}

class ResponseReader implements Dispatcher.DispatchHandler, ByteSource {
  readonly head = Promise.withResolvers<Response>();
  readonly #signal: AbortSignal;
  #controller: Dispatcher.DispatchController | undefined;
  #chunks: Buffer[] = [];
  #heldBytes = 0;
  #hasEnded = false;
  #broken: { readonly error: unknown } | undefined;
  #asked: PromiseWithResolvers<Buffer | undefined> | undefined;
  readonly #onAbort = (): void => this.#drop(this.#signal.reason);

  constructor(signal: AbortSignal) {
    this.#signal = signal;
    if (signal.aborted) this.fail(signal.reason);
    else signal.addEventListener('abort', this.#onAbort, { once: true });
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
    // Dropped while it waited for a socket.
    if (this.#broken !== undefined) controller.abort(errorOf(this.#broken.error));
  }

  onResponseStart(
    _controller: Dispatcher.DispatchController,
    statusCode: number,
    headers: Dispatcher.ResponseData['headers'],
  ): void {
    if (statusCode >= 200) this.head.resolve({ statusCode, headers, body: this });
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.#asked !== undefined) {
      this.#asked.resolve(chunk);
      this.#asked = undefined;
      return;
    }
    this.#chunks.push(chunk);
    this.#heldBytes += chunk.byteLength + CHUNK_BYTES;
    if (this.#heldBytes >= HELD_BYTES) controller.pause();
  }

  onResponseEnd(): void {
    this.#hasEnded = true;
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.#asked?.resolve(undefined);
    this.#asked = undefined;
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.fail(error);
  }

  fail(error: unknown): void {
    if (this.#broken !== undefined || this.#hasEnded) return;
    this.#broken = { error };
    this.#chunks = [];
    this.#signal.removeEventListener('abort', this.#onAbort);
    this.head.reject(error);
    this.#asked?.reject(error);
    this.#asked = undefined;
  }

  async next(): Promise<Buffer | undefined> {
    if (this.#broken !== undefined) throw this.#broken.error;
    const chunk = this.#takeHeld();
    if (chunk !== undefined) {
      if (this.#controller?.paused === true && this.#heldBytes < HELD_BYTES) this.#controller.resume();
      return chunk;
    }
    if (this.#hasEnded) return undefined;
    this.#asked = Promise.withResolvers();
    return this.#asked.promise;
  }

  /** Crumbs are joined: as an object each would need many times its bytes. */
  #takeHeld(): Buffer | undefined {
    if (this.#heldBytes >= this.#chunks.length * CRUMB_BYTES) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) this.#heldBytes -= chunk.byteLength + CHUNK_BYTES;
      return chunk;
    }
    const joined = Buffer.concat(this.#chunks);
    this.#chunks = [];
    this.#heldBytes = 0;
    return joined;
  }

  discard(): void {
    // Most have been read to their end, and an error costs more than the rest of this.
    if (!this.#hasEnded) this.#drop(new Error('the answer was not read to its end'));
  }

  #drop(reason: unknown): void {
    this.fail(reason);
    this.#controller?.abort(errorOf(reason));
  }
}

function errorOf(reason: unknown): Error {
  return reason instanceof Error ? reason : new Error('aborted', { cause: reason });
}

/** The bytes of a stream. An error of one that is dropped is heard by nobody, and must not end the process. */
export function sourceOf(stream: Readable): ByteSource {
  const iterator = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  stream.on('error', () => undefined);
  return {
    next: async () => {
      const { done, value } = await iterator.next();
      return done === true ? undefined : value;
    },
    discard: () => void stream.destroy(),
  };
}

export async function* chunksOf(source: ByteSource): AsyncIterable<Buffer> {
  try {
    for (let chunk = await source.next(); chunk !== undefined; chunk = await source.next()) yield chunk;
  } finally {
    source.discard();
  }
}
