import type { TimeLimit } from '../abort.ts';
import { FailureError, failure } from '../failure.ts';
import type { SniffedType } from '../media/sniff.ts';
import { tap } from '../tap.ts';
import type { ByteSource } from './byte-source.ts';
import { classifyHttpError } from './http.ts';

/** The bytes of a media as they arrive, and what is known of them beforehand. */
export interface MediaBody {
  /** What WeChat says it is: a MIME type without parameters. */
  readonly declaredType?: string;
  /** What its first bytes say it is. */
  readonly sniffed?: SniffedType;
  /** From the file name WeChat gives it. */
  readonly namedExtension?: string;
  readonly contentLength?: number;
  /** True when nothing proves that the end of the bytes is the end of the media. @see DecodedBody */
  readonly isEndUnproven: boolean;
  /**
   * Read once, to the end.
   *
   * @throws FailureError when the bytes end early, stop coming or take too long; the signal's reason when it aborts.
   */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Drops the connection. Needed when `chunks` is not read. */
  discard(): void;
}

/** The first bytes of a response, taken off it, and the way to the rest. */
export interface PeekedBody {
  readonly head: Buffer;
  /** True when `head` is the whole body. */
  readonly complete: boolean;
  /** `head` and what follows it. */
  readonly chunks: AsyncIterable<Uint8Array>;
  discard(): void;
}

/**
 * Reads the first bytes of a response body.
 *
 * @param wanted tells, from the bytes so far, how many are called for: reading goes on until that many are there.
 * @param limit ends the download; let go of when the body has been read or dropped.
 * @throws FailureError when the body breaks off or the time is up; the reason of the limit's parent when that aborts.
 */
export async function peekBody(
  body: ByteSource,
  wanted: (head: Buffer) => number,
  limit: TimeLimit,
): Promise<PeekedBody> {
  const discard = (): void => {
    limit.end();
    body.discard();
  };

  async function next(): Promise<Buffer | undefined> {
    try {
      return await body.next();
    } catch (error) {
      throw bodyError(error, limit);
    }
  }

  let head: Buffer = Buffer.alloc(0);
  let complete = false;
  try {
    while (!complete && head.byteLength < wanted(head)) {
      const chunk = await next();
      if (chunk === undefined) complete = true;
      else head = head.byteLength === 0 ? chunk : Buffer.concat([head, chunk]);
    }
  } catch (error) {
    discard();
    throw error;
  }

  let isHeadGiven = head.byteLength === 0;
  let hasEnded = false;
  function end(): IteratorReturnResult<undefined> {
    hasEnded = true;
    discard();
    return { done: true, value: undefined };
  }
  async function nextChunk(): Promise<IteratorResult<Uint8Array, undefined>> {
    if (hasEnded) return end();
    if (!isHeadGiven) {
      isHeadGiven = true;
      return { done: false, value: head };
    }
    try {
      const chunk = complete ? undefined : await next();
      return chunk === undefined ? end() : { done: false, value: chunk };
    } catch (error) {
      end();
      throw error;
    }
  }
  const chunks = { [Symbol.asyncIterator]: () => ({ next: nextChunk, return: async () => end() }) };

  return { head, complete, chunks, discard };
}

/** What a body that breaks off means; a stop is thrown as it came. */
function bodyError(error: unknown, { signal, expired }: TimeLimit): unknown {
  if (expired) return new FailureError(classifyHttpError(signal.reason, 'body'));
  return signal.aborted ? signal.reason : new FailureError(classifyHttpError(error, 'body'));
}

/** Checks the bytes that pass against the announced length and the size limit. @throws FailureError */
export function checkLength(
  chunks: AsyncIterable<Uint8Array>,
  contentLength: number | undefined,
  maxBytes: number,
): AsyncIterable<Uint8Array> {
  let sizeBytes = 0;
  const onChunk = ({ byteLength }: Uint8Array): void => {
    sizeBytes += byteLength;
    if (sizeBytes > maxBytes)
      throw new FailureError(failure('media-too-large', { detail: `more than ${maxBytes} bytes` }));
  };
  const onEnd = (): void => {
    if (contentLength !== undefined && sizeBytes !== contentLength)
      throw new FailureError(failure('body-truncated', { detail: `${sizeBytes} of ${contentLength} bytes` }));
    if (sizeBytes === 0) throw new FailureError(failure('body-empty'));
  };
  return tap(chunks, onChunk, onEnd);
}
