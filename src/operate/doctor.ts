import { orAbort } from '../abort.ts';
import { MAX_OUTBOX_ENTRIES, readOutboxDepth } from '../catalog/outbox.ts';
import type { Config } from '../config.ts';
import { FAILURES, type Result, succeed } from '../failure.ts';
import { connectRedis, DatabaseRefusedError, describeRedis, type RedisClient, untilReady } from '../redis/connect.ts';
import { createFleetClock } from '../redis/fleet-clock.ts';
import { redisKeys } from '../redis/keys.ts';
import { describeDurability, isFull, readRedisFacts, redisMistakes } from '../redis/redis-facts.ts';
import { checkStore, type Finding } from '../store/check-store.ts';
import { createS3Client } from '../store/s3-client.ts';
import { elapsed, MINUTE, SECOND } from '../time.ts';
import { createApiHosts } from '../weixin/api-hosts.ts';
import { type Account, type Component, type Credential, isOwn } from '../weixin/credentials/account.ts';
import { createAuthorizations } from '../weixin/credentials/authorizations.ts';
import { createComponentTickets } from '../weixin/credentials/component-tickets.ts';
import { requestToken } from '../weixin/credentials/token-endpoint.ts';
import { createTokenSource } from '../weixin/credentials/token-source.ts';
import { createHttpPool } from '../weixin/http.ts';
import { EXIT } from './command-error.ts';
import { byteCount, type Output } from './output.ts';
import { probeCloudCall } from './probe-cloud-call.ts';

const REDIS_TIMEOUT_MS = 5 * SECOND;
const STORE_TIMEOUT_MS = 60 * SECOND;
const TOKEN_TIMEOUT_MS = 30 * SECOND;
/** Long before the outbox is full. */
const OUTBOX_LATE_MS = 15 * MINUTE;
/** Users have seen pauses of half an hour to an hour. */
const OLD_TICKET_MS = 90 * MINUTE;

/** `doctor`: looks at everything a worker needs and says what to do. Exit 1 when a worker could not work. */
export async function doctor(config: Config, output: Output): Promise<number> {
  const sections = [checkRedis(config), checkBucket(config), checkAccounts(config)];
  let failed = false;
  for (const section of sections) {
    for (const finding of await section) {
      failed ||= finding.result === 'fail';
      output.result(finding, () => describe(finding));
    }
  }
  return failed ? EXIT.failed : EXIT.done;
}

function describe({ check, result, detail, hint }: Finding): string {
  const line = `${result.padEnd(4)}  ${check}: ${detail}`;
  return hint === undefined ? line : `${line}\n      ${hint}`;
}

async function checkRedis(config: Config): Promise<Finding[]> {
  let lastError = 'no answer';
  const redis = connectRedis(config.redis, 'hasty', 'weixin-media:doctor', ({ message }) => {
    lastError = message;
  });
  const where = describeRedis(config.redis);
  try {
    await untilReady(redis, AbortSignal.timeout(REDIS_TIMEOUT_MS));
    const facts = await readRedisFacts(redis);
    const limit =
      facts.maxMemoryBytes === 0
        ? 'no memory limit'
        : `${byteCount(facts.usedMemoryBytes)} of ${byteCount(facts.maxMemoryBytes)} used`;
    const mistakes = redisMistakes(facts).map((detail): Finding => ({ check: 'redis', result: 'warn', detail }));
    const detail = `${where}, version ${facts.version}, ${describeDurability(facts)}, ${limit}`;
    const found: Finding = isFull(facts)
      ? { check: 'redis', result: 'fail', detail: `full: ${detail}`, hint: 'It takes no media. Raise its maxmemory.' }
      : { check: 'redis', result: 'ok', detail };
    return [found, ...mistakes, ...(await checkOutbox(redis, config.redis.prefix))];
  } catch (error) {
    if (error instanceof DatabaseRefusedError) lastError = error.message;
    return [
      { check: 'redis', result: 'fail', detail: `${where} can't be reached (${lastError})`, hint: 'Check REDIS_URL.' },
    ];
  } finally {
    redis.disconnect();
  }
}

/** Silent while all is well: who needs no catalog runs no catalog process. */
async function checkOutbox(redis: RedisClient, prefix: string): Promise<Finding[]> {
  const { entries, since } = await readOutboxDepth(redis, redisKeys(prefix));
  if (since === undefined || Date.now() - since < OUTBOX_LATE_MS) return [];
  const minutes = Math.round((Date.now() - since) / MINUTE);
  const detail = `${entries} entries wait to be written, the first for ${minutes} min`;
  const hint = `Run weixin-media catalog. Beyond ${MAX_OUTBOX_ENTRIES} entries the oldest are dropped; closing their day makes up for media.`;
  return [{ check: 'catalog', result: 'warn', detail, hint }];
}

async function checkBucket({ store }: Config): Promise<Finding[]> {
  if (store === undefined)
    return [{ check: 'bucket', result: 'fail', detail: 'ARCHIVE_BUCKET is not set', hint: 'Set it.' }];
  const client = createS3Client(store, 4);
  try {
    return await checkStore(client, store.bucket, AbortSignal.timeout(STORE_TIMEOUT_MS));
  } finally {
    client.destroy();
  }
}

/**
 * Looks whether each account can be had a token for, without changing anything. Asking for a stable_token changes
 * nothing; a call of /cgi-bin/token retires the token before, so that kind is asked for by the workers' own way, which
 * shares what it gets. A token service is only asked, and the sidecar of WeChat Cloud Run called for a media that nobody has.
 */
async function checkAccounts(config: Config): Promise<Finding[]> {
  const { accounts, components, weixin } = config;
  if (accounts.length + components.length === 0) {
    const hint = 'Set WEIXIN_APP_ID and WEIXIN_APP_SECRET, or WEIXIN_ACCOUNTS_FILE.';
    return [{ check: 'account', result: 'fail', detail: 'none is configured', hint }];
  }
  const redis = connectRedis(config.redis, 'hasty', 'weixin-media:doctor', () => undefined);
  const http = createHttpPool(weixin.timeouts, 4);
  const endpoint = { hosts: createApiHosts(weixin.apiBaseUrls, elapsed), http };
  const keys = redisKeys(config.redis.prefix);
  const clock = createFleetClock(redis, elapsed, Date.now);
  const tokens = createTokenSource({
    redis,
    keys,
    endpoint,
    now: clock.now,
    random: Math.random,
    onRefresh: () => undefined,
  });

  async function check(account: Account): Promise<Finding> {
    const name = `account ${account.appId}`;
    const limit = AbortSignal.timeout(TOKEN_TIMEOUT_MS);
    const { credential } = account;
    let token: Result<unknown>;
    if (isOwn(account) && credential.type === 'stable_token') {
      token = await requestToken(account, false, endpoint, limit);
    } else if (credential.type === 'cloud' && credential.mode === 'sidecar') {
      const refused = await probeCloudCall(account, endpoint, weixin.timeouts, limit);
      token = refused === undefined ? succeed(undefined) : { ok: false, failure: refused };
    } else if (!liesInRedis(credential)) {
      token = await tokens.current(account, limit);
    } else {
      const unreachable = await untilReady(redis, AbortSignal.timeout(REDIS_TIMEOUT_MS)).catch(() => true);
      if (unreachable === true) {
        return {
          check: name,
          result: 'fail',
          detail: 'not asked for: Redis, which holds the token, is away',
          hint: 'Check REDIS_URL.',
        };
      }
      await orAbort(clock.sync(), limit).catch(() => undefined);
      try {
        token = await tokens.current(account, limit);
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        return {
          check: name,
          result: 'fail',
          detail: `not asked for: no access to Redis, which holds the token (${why})`,
          hint: 'See what is said of redis.',
        };
      }
    }
    if (token.ok) return { check: name, result: 'ok', detail: describeSuccess(credential) };
    const { code, errcode, errmsg, detail, httpStatus } = token.failure;
    const status = httpStatus === undefined ? undefined : `HTTP ${httpStatus}`;
    const said = [status, errcode, errmsg, detail].filter((part) => part !== undefined).join(' ');
    return { check: name, result: 'fail', detail: said === '' ? code : `${code} (${said})`, hint: FAILURES[code].hint };
  }

  /** Asks WeChat nothing: its token is the workers'. */
  async function checkPlatform({ appId }: Component): Promise<Finding> {
    const check = `platform ${appId}`;
    const limit = AbortSignal.timeout(REDIS_TIMEOUT_MS);
    try {
      await untilReady(redis, limit);
      await orAbort(clock.sync(), limit).catch(() => undefined);
      const createdAt = await orAbort(createComponentTickets(redis, keys, clock.now).createdAt(appId), limit);
      const apps = await orAbort(createAuthorizations(redis, keys).list(appId), limit);
      const known = `${apps.size} ${apps.size === 1 ? 'account is' : 'accounts are'} known`;
      if (createdAt === undefined) {
        const { hint } = FAILURES['component-ticket-missing'];
        return { check, result: 'fail', detail: `no component_verify_ticket has come; ${known}`, hint };
      }
      const minutes = Math.max(0, Math.round((clock.now() - createdAt) / MINUTE));
      const detail = `its ticket is ${minutes} min old; ${known}`;
      if (minutes * MINUTE <= OLD_TICKET_MS) return { check, result: 'ok', detail };
      const hint = 'A ticket comes every ten minutes: see that the authorisation events reach ingest.';
      return { check, result: 'warn', detail, hint };
    } catch (error) {
      const why = error instanceof Error ? error.message : String(error);
      const detail = `not known: no access to Redis, which holds its ticket (${why})`;
      return { check, result: 'fail', detail, hint: 'See what is said of redis.' };
    }
  }

  try {
    const findings: Finding[] = [];
    for (const component of components) findings.push(await checkPlatform(component));
    for (const account of accounts) findings.push(await check(account));
    return findings;
  } finally {
    redis.disconnect();
    await http.close();
  }
}

/** True where the token of an app is to be had from Redis only, be it the fleet's or somebody else's. */
function liesInRedis(credential: Credential): boolean {
  if (credential.type === 'cloud') return false;
  return credential.type !== 'external' || 'redisKey' in credential.source;
}

function describeSuccess(credential: Credential): string {
  if (credential.type === 'external') return 'the token service gave an access_token (external)';
  if (credential.type !== 'cloud') return `an access_token was issued (${credential.type})`;
  return credential.mode === 'sidecar'
    ? 'media/get is served without an access_token (cloud, sidecar)'
    : 'a token lies in the file (cloud, token-file)';
}
