import pRetry from 'p-retry';
import type { Dispatcher } from 'undici';
import { type Failure, FailureError, fail, failure, type Result, succeed } from '../../failure.ts';
import { Secret } from '../../secret.ts';
import { DAY, SECOND } from '../../time.ts';
import type { ApiHosts } from '../api-hosts.ts';
import { failureOfReply, MAX_JSON_BYTES, parseWeixinJson } from '../error-reply.ts';
import { classifyHttpError, type HttpPool, isNoConnection } from '../http.ts';
import type { OwnAccount } from './account.ts';

/** For all tries together; the lease on the token outlives it. */
export const TOKEN_CALL_TIMEOUT_MS = 12 * SECOND;
const TRY_TIMEOUT_MS = 5 * SECOND;

/** Further tries within a call. */
const BLIP_RETRIES = 2;

/** WeChat tells to reserve 512 characters; those seen have 107 to 157. */
const MAX_TOKEN_LENGTH = 4_096;
/** Far longer than any is known to live. */
const MAX_LIFE_SECONDS = DAY / SECOND;

export interface TokenAnswer {
  readonly token: Secret;
  /** Remaining life; 300 at least by the documentation, 7200 at most as of today. */
  readonly expiresInMs: number;
}

/** How the token endpoints are reached. */
export interface TokenEndpoint {
  readonly hosts: ApiHosts;
  readonly http: HttpPool;
  /** Further tries within a call after a blip. Default 2. */
  readonly blipRetries?: number;
}

/**
 * Asks WeChat for the access_token of an app. Blips (-1, a reset) are tried again within the call, and a host
 * that says nothing is left for the next.
 *
 * What changes something at WeChat and is counted there, a forced call or any of /cgi-bin/token, is tried again only if
 * no connection was made: it may have been done although the answer is lost.
 *
 * @param force `stable_token` only: retire the current token at once. Limited to 20 a day, 30 s apart.
 * @throws the signal's reason when it aborts.
 * @see https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
 * @see https://developers.weixin.qq.com/doc/service/en/Basic_Information/Get_access_token.html
 */
export async function requestToken(
  { appId, credential }: OwnAccount,
  force: boolean,
  { hosts, http, blipRetries = BLIP_RETRIES }: TokenEndpoint,
  signal: AbortSignal,
): Promise<Result<TokenAnswer>> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(TOKEN_CALL_TIMEOUT_MS)]);

  const mayRepeat = credential.type === 'stable_token' && !force;

  const asked = new Set<URL>();
  async function tryOnce(attemptNumber: number): Promise<TokenAnswer> {
    const host = hosts.current();
    asked.add(host);
    // An idle socket may be stale, which would cost a call that may not be repeated.
    const answer = await call(host, attemptNumber === 1 && mayRepeat ? http.pooled : http.fresh);
    if (answer.ok) return answer.value;
    const { code } = answer.failure;
    if (code === 'weixin-unreachable' || code === 'weixin-timeout') hosts.unreachable(host);
    throw new FailureError(answer.failure);
  }

  /** A host that says nothing costs a try's whole time: it is worth another one at a host that has not been silent yet. */
  function isWorthATry(failure: Failure): boolean {
    if (!mayRepeat) return isNoConnection(failure);
    return isBlip(failure) || (failure.code === 'weixin-timeout' && !asked.has(hosts.current()));
  }

  async function call(host: URL, dispatcher: Dispatcher): Promise<Result<TokenAnswer>> {
    const perTry = AbortSignal.any([limit, AbortSignal.timeout(TRY_TIMEOUT_MS)]);
    try {
      const { statusCode, body } = await dispatcher.request({ ...endpoint(host), signal: perTry });
      return readAnswer(statusCode, await readBounded(body));
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      if (error instanceof FailureError) return { ok: false, failure: error.failure };
      return { ok: false, failure: classifyHttpError(perTry.aborted ? perTry.reason : error, 'request') };
    }
  }

  function endpoint(
    host: URL,
  ): Pick<Dispatcher.RequestOptions, 'path' | 'method' | 'headers' | 'body'> & { origin: string } {
    const base = host.pathname.replace(/\/$/, '');
    const secret = credential.secret.reveal();
    if (credential.type === 'token') {
      const query = new URLSearchParams({ grant_type: 'client_credential', appid: appId, secret });
      return { origin: host.origin, path: `${base}/cgi-bin/token?${query}`, method: 'GET' };
    }
    return {
      origin: host.origin,
      path: `${base}/cgi-bin/stable_token`,
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ grant_type: 'client_credential', appid: appId, secret, force_refresh: force }),
    };
  }

  function readAnswer(status: number, body: Buffer): Result<TokenAnswer> {
    const json = parseWeixinJson(body);
    if (json === undefined)
      return fail(status === 200 ? 'weixin-unexpected-reply' : 'weixin-bad-gateway', { httpStatus: status });
    const { access_token: token, expires_in: expiresIn } = json;
    const seconds = Math.min(Number(expiresIn), MAX_LIFE_SECONDS);
    if (typeof token === 'string' && token !== '' && token.length <= MAX_TOKEN_LENGTH && seconds > 0) {
      return succeed({ token: new Secret(token), expiresInMs: seconds * SECOND });
    }
    return { ok: false, failure: failureOfReply(json, 'token', credential.secret) };
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
    if (limit.aborted) return fail('weixin-timeout', { detail: 'token endpoint' });
    throw error;
  }
}

/** A fault that is likely to be gone in a second. */
export function isBlip({ code }: Failure): boolean {
  return code === 'weixin-busy' || code === 'weixin-unreachable';
}

async function readBounded(body: Dispatcher.ResponseData['body']): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > MAX_JSON_BYTES) throw new FailureError(failure('weixin-unexpected-reply'));
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}
