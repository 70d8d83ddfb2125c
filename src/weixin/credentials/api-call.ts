import pRetry from 'p-retry';
import type { Dispatcher } from 'undici';
import { type Failure, FailureError, fail, failure, type Result, succeed } from '../../failure.ts';
import type { Secret } from '../../secret.ts';
import { SECOND } from '../../time.ts';
import type { ApiHosts } from '../api-hosts.ts';
import type { ErrorSource } from '../error-codes.ts';
import { failureOfReply, MAX_JSON_BYTES, parseWeixinJson } from '../error-reply.ts';
import { classifyHttpError, type HttpPool, isNoConnection } from '../http.ts';

/** For all tries together; the lease on a token outlives it. */
export const API_CALL_TIMEOUT_MS = 12 * SECOND;
const TRY_TIMEOUT_MS = 5 * SECOND;

/** Further tries within a call. */
const BLIP_RETRIES = 2;

/** How the API is reached for what is not media. */
export interface ApiEndpoint {
  readonly hosts: ApiHosts;
  readonly http: HttpPool;
  /** Further tries within a call after a blip. Default 2. */
  readonly blipRetries?: number;
}

export type Json = Readonly<Record<string, unknown>>;

export interface ApiCall {
  /** `/cgi-bin/…` */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>>;
  /** The body of a POST; absent: a GET. */
  readonly json?: object;
  /**
   * False for what changes something at WeChat or is counted there: it is tried again only if no connection was made,
   * since it may have been done although the answer is lost.
   */
  readonly mayRepeat: boolean;
  /** Whose words an errcode is taken for. */
  readonly source: ErrorSource;
  /** Longest answer that is read. Default 64 KiB. */
  readonly maxBytes?: number;
  /** What is sent; blotted out of what is kept of an answer. */
  readonly secrets: readonly Secret[];
}

/**
 * Makes a call whose answer is JSON. Blips (-1, a reset) are tried again within the call, and a host that says nothing
 * is left for the next.
 *
 * @param read takes what was asked for out of the answer; `undefined` when it is not there.
 * @throws the signal's reason when it aborts.
 */
export async function callApi<T>(
  { path, query = {}, json, mayRepeat, source, secrets, maxBytes = MAX_JSON_BYTES }: ApiCall,
  read: (answer: Json) => T | undefined,
  { hosts, http, blipRetries = BLIP_RETRIES }: ApiEndpoint,
  signal: AbortSignal,
): Promise<Result<T>> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(API_CALL_TIMEOUT_MS)]);
  const queryText = Object.keys(query).length === 0 ? '' : `?${new URLSearchParams(query)}`;
  const request =
    json === undefined
      ? ({ method: 'GET' } as const)
      : ({ method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(json) } as const);

  const asked = new Set<URL>();
  async function tryOnce(attemptNumber: number): Promise<T> {
    const host = hosts.next();
    asked.add(host);
    // An idle socket may be stale, which would cost a call that may not be repeated.
    const answer = await call(host, attemptNumber === 1 && mayRepeat ? http.pooled : http.fresh);
    if (answer.ok) return answer.value;
    const { code } = answer.failure;
    if (code === 'weixin-unreachable' || code === 'weixin-timeout') hosts.unreachable(host);
    throw new FailureError(answer.failure);
  }

  /** A host that says nothing costs a try's whole time: it is worth another one at a host that has not been silent yet. */
  function isWorthATry(cause: Failure): boolean {
    if (!mayRepeat) return isNoConnection(cause);
    return isBlip(cause) || (cause.code === 'weixin-timeout' && hosts.hasOther(asked));
  }

  async function call(host: URL, dispatcher: Dispatcher): Promise<Result<T>> {
    const perTry = AbortSignal.any([limit, AbortSignal.timeout(TRY_TIMEOUT_MS)]);
    try {
      const { statusCode, body } = await dispatcher.request({
        origin: host.origin,
        path: `${host.pathname.replace(/\/$/, '')}${path}${queryText}`,
        ...request,
        signal: perTry,
      });
      return readAnswer(statusCode, await readBounded(body, maxBytes));
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof FailureError) return { ok: false, failure: error.failure };
      return { ok: false, failure: classifyHttpError(perTry.aborted ? perTry.reason : error, 'request') };
    }
  }

  function readAnswer(status: number, body: Buffer): Result<T> {
    const answer = parseWeixinJson(body);
    if (answer === undefined)
      return fail(status === 200 ? 'weixin-unexpected-reply' : 'weixin-bad-gateway', { httpStatus: status });
    const value = read(answer);
    return value === undefined ? { ok: false, failure: failureOfReply(answer, source, secrets) } : succeed(value);
  }

  try {
    const answer = await pRetry(tryOnce, {
      retries: blipRetries,
      minTimeout: 0.3 * SECOND,
      factor: 2,
      randomize: true,
      shouldRetry: ({ error }) => error instanceof FailureError && isWorthATry(error.failure),
      signal: limit,
    });
    return succeed(answer);
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (error instanceof FailureError) return { ok: false, failure: error.failure };
    if (limit.aborted) return fail('weixin-timeout', { detail: path });
    throw error;
  }
}

/** A fault that is likely to be gone in a second. */
export function isBlip({ code }: Failure): boolean {
  return code === 'weixin-busy' || code === 'weixin-unreachable';
}

/** Reads a body that is expected to be short JSON. @throws FailureError when it is longer. */
export async function readBounded(body: Dispatcher.ResponseData['body'], maxBytes: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > maxBytes) throw new FailureError(failure('weixin-unexpected-reply'));
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
