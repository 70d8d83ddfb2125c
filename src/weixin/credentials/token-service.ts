import { orAbort } from '../../abort.ts';
import { type Failure, FailureError, fail, failure, type Result, succeed } from '../../failure.ts';
import type { RedisClient } from '../../redis/connect.ts';
import type { Secret } from '../../secret.ts';
import { SECOND } from '../../time.ts';
import { MAX_JSON_BYTES, parseWeixinJson } from '../error-reply.ts';
import { classifyHttpError, type HttpPool } from '../http.ts';
import type { ExternalCredential, TokenService } from './account.ts';
import { readBounded } from './api-call.ts';
import { parseForeignToken } from './foreign-token.ts';
import type { IssuedToken } from './issued-token.ts';

/** For one question, of the token or about it. */
const QUESTION_TIMEOUT_MS = 5 * SECOND;

/** Where a token service of the operator's is reached. */
export interface TokenServiceLines {
  readonly http: HttpPool;
  readonly redis: RedisClient;
}

export interface ServedToken extends IssuedToken {
  /** As the service says, where it does. */
  readonly expiresInMs?: number;
}

/**
 * Asks a token service of the operator's, over HTTP or by the Redis of the queue. Asking must change nothing there.
 *
 * Follows no redirect. Of an answer that is no token nothing is kept but its status: it may hold anything.
 */
export async function askTokenService(
  { source }: Pick<ExternalCredential, 'source'>,
  lines: TokenServiceLines,
): Promise<Result<ServedToken>> {
  return 'url' in source ? askOverHttp(source, lines.http) : askRedis(source, lines.redis);
}

async function askOverHttp({ url, headers, path }: TokenService, http: HttpPool): Promise<Result<ServedToken>> {
  const answer = await call(url, 'GET', headers, http);
  if (!answer.ok) return answer;
  return answer.value.status === 200
    ? tokenAt(path, answer.value.body)
    : fail('token-service-failed', { httpStatus: answer.value.status });
}

/** Tells a token service that WeChat rejects the token it gives out. Returns what kept it from listening. */
export async function sayRejected(
  { headers, invalidate }: Pick<TokenService, 'headers'> & { invalidate: NonNullable<TokenService['invalidate']> },
  http: HttpPool,
): Promise<Failure | undefined> {
  const answer = await call(invalidate.url, invalidate.method, headers, http);
  if (!answer.ok) return answer.failure;
  const { status } = answer.value;
  return status >= 200 && status < 300
    ? undefined
    : failure('token-service-failed', { httpStatus: status, detail: 'invalidate' });
}

async function call(
  url: URL,
  method: 'GET' | 'POST' | 'PUT' | 'DELETE',
  secretHeaders: Readonly<Record<string, Secret>>,
  http: HttpPool,
): Promise<Result<{ readonly status: number; readonly body: Buffer }>> {
  const headers = Object.entries(secretHeaders).map(([name, value]) => [name, value.reveal()]);
  const limit = AbortSignal.timeout(QUESTION_TIMEOUT_MS);
  try {
    const { statusCode, body } = await http.fresh.request({
      origin: url.origin,
      path: `${url.pathname}${url.search}`,
      method,
      headers: { accept: 'application/json', ...Object.fromEntries(headers) },
      signal: limit,
    });
    return succeed({ status: statusCode, body: await readBounded(body, MAX_JSON_BYTES) });
  } catch (error) {
    if (error instanceof FailureError)
      return fail('token-service-failed', { detail: `an answer of more than ${MAX_JSON_BYTES} bytes` });
    const { detail } = classifyHttpError(limit.aborted ? limit.reason : error, 'request');
    return fail('token-service-failed', { detail });
  }
}

/** Reads no more of the value than an answer may have. */
async function askRedis(
  { redisKey, path }: Extract<ExternalCredential['source'], { redisKey: string }>,
  redis: RedisClient,
): Promise<Result<ServedToken>> {
  let text: string;
  try {
    text = await orAbort(redis.getrange(redisKey, 0, MAX_JSON_BYTES), AbortSignal.timeout(QUESTION_TIMEOUT_MS));
  } catch (error) {
    return fail('token-service-failed', { detail: nameOfRedisError(error) });
  }
  if (text === '') return fail('token-service-failed', { detail: 'nothing lies at redisKey' });
  if (path !== undefined) return tokenAt(path, Buffer.from(text));
  const token = parseForeignToken(text.trim());
  return token === undefined
    ? fail('token-service-failed', { detail: 'what lies at redisKey is no token' })
    : succeed(token);
}

/** The first word of what Redis says is its code. What follows may quote what was sent. */
function nameOfRedisError(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  return /^[A-Z]{2,20}\b/.exec(error.message)?.[0] ?? error.name;
}

function tokenAt(path: readonly string[], body: Buffer): Result<ServedToken> {
  const json = parseWeixinJson(body);
  if (json === undefined) return fail('token-service-failed', { detail: 'its answer is no JSON object' });
  let place: unknown = json;
  for (const name of path.slice(0, -1)) place = memberOf(place, name);
  const text = memberOf(place, path.at(-1) ?? '');
  const token = typeof text === 'string' ? parseForeignToken(text) : undefined;
  if (token === undefined) return fail('token-service-failed', { detail: `no token at ${path.join('.')}` });
  const seconds = Number(memberOf(place, 'expires_in'));
  return succeed({ ...token, ...(seconds > 0 ? { expiresInMs: seconds * SECOND } : {}) });
}

function memberOf(value: unknown, name: string): unknown {
  return typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Readonly<Record<string, unknown>>)[name]
    : undefined;
}
