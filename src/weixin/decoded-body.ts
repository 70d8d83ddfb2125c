import { pipeline, Readable, type Transform } from 'node:stream';
import { createBrotliDecompress, createGunzip, createInflate } from 'node:zlib';
import { fail, type Result, succeed } from '../failure.ts';
import { type ByteSource, chunksOf, type Response, sourceOf } from './byte-source.ts';

const DECODERS: Readonly<Record<string, () => Transform>> = {
  gzip: createGunzip,
  'x-gzip': createGunzip,
  deflate: createInflate,
  br: createBrotliDecompress,
};

/** What servers say of a body to which nothing was done; `none` is no registered coding, and is sent all the same. */
const PLAIN = new Set(['', 'identity', 'none']);

export interface DecodedBody {
  readonly body: ByteSource;
  /** How many bytes `body` must give; unknown without Content-Length, and for an encoded body. */
  readonly contentLength?: number;
  /**
   * True when nothing but the end of the connection tells where the body ends: neither a length nor chunks. A connection
   * that breaks in the middle looks the same (undici takes a reset for the end, too).
   */
  readonly isEndUnproven: boolean;
}

/**
 * Undoes a Content-Encoding that nobody asked for (we send `Accept-Encoding: identity`; a proxy may not care), so that
 * compressed bytes are never taken for media. One that is not known is a failure, and the body is dropped.
 */
export function decodeBody({ headers, body }: Omit<Response, 'statusCode'>): Result<DecodedBody> {
  const length = textOf(headers['content-length']);
  const isEndUnproven = length === undefined && !/\bchunked\b/i.test(textOf(headers['transfer-encoding']) ?? '');
  const encoding = textOf(headers['content-encoding'])?.trim().toLowerCase() ?? '';
  if (PLAIN.has(encoding)) {
    const contentLength = length !== undefined && /^\d{1,15}$/.test(length) ? { contentLength: Number(length) } : {};
    return succeed({ body, isEndUnproven, ...contentLength });
  }
  const decoder = Object.hasOwn(DECODERS, encoding) ? DECODERS[encoding]?.() : undefined;
  if (decoder === undefined) {
    body.discard();
    return fail('weixin-bad-gateway', { detail: `Content-Encoding ${encoding.slice(0, 40)}` });
  }
  // Errors of either come out of the decoder; undici itself compares the encoded bytes with Content-Length.
  const encoded = Readable.from(chunksOf(body), { objectMode: false });
  const decoded = sourceOf(pipeline(encoded, decoder, () => undefined));
  const discard = (): void => {
    decoded.discard();
    // It may wait for more.
    body.discard();
  };
  return succeed({ body: { next: decoded.next, discard }, isEndUnproven });
}

/** The first value of a header. */
export function textOf(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header[0] : header;
}
