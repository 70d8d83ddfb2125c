import { pipeline, type Readable, type Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import type { Dispatcher } from 'undici';

const DECODERS: Readonly<Record<string, () => Transform>> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
};

export interface DecodedBody {
  readonly body: Readable;
  /** How many bytes `body` must give; unknown without Content-Length, and for an encoded body. */
  readonly contentLength?: number;
}

/**
 * Undoes a Content-Encoding that nobody asked for (we send `Accept-Encoding: identity`; a proxy may not care), so that
 * compressed bytes are never taken for media. An unknown encoding is left alone, and the sniffed type will tell.
 */
export function decodeBody(response: Dispatcher.ResponseData): DecodedBody {
  const encoding = textOf(response.headers['content-encoding'])?.trim().toLowerCase();
  const decoder = encoding === undefined ? undefined : DECODERS[encoding]?.();
  if (decoder !== undefined) {
    // Errors of either come out of the decoder; undici itself compares the encoded bytes with Content-Length.
    return { body: pipeline(response.body, decoder, () => undefined) };
  }
  const length = textOf(response.headers['content-length']);
  return length !== undefined && /^\d{1,15}$/.test(length)
    ? { body: response.body, contentLength: Number(length) }
    : { body: response.body };
}

/** The first value of a header. */
export function textOf(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}
