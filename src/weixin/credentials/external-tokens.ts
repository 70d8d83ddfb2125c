import { orAbort } from '../../abort.ts';
import { type Failure, failure, type Result, succeed } from '../../failure.ts';
import type { RedisKeys } from '../../redis/keys.ts';
import { type Clock, MINUTE, type Random, SECOND } from '../../time.ts';
import type { Account, ExternalCredential } from './account.ts';
import { type FailedCall, failedCall, rememberedFailure } from './failed-call.ts';
import type { IssuedToken, TokenRefresh } from './issued-token.ts';
import { askTokenService, type ServedToken, sayRejected, type TokenServiceLines } from './token-service.ts';

/** A token is asked for again after this time at the latest: it may have been replaced, and nobody tells us. */
const MAX_AGE_MS = MINUTE;
/** Of a life that the service tells, the last part is not relied on. */
const USED_SHARE_OF_LIFE = 0.8;
/** A token that was rejected is asked for again after this time, and no sooner: many jobs meet the same rejection. */
const REJECTED_AGE_MS = SECOND;
/** Rejections further apart than this have nothing to do with each other. */
const REJECTIONS_COUNT_MS = MINUTE;
/** Of several tokens of an app the service is told no sooner than this after another: rejections flap. */
const SAY_PAUSE_MS = MINUTE;
/** Of the same token no sooner than this: it may have been told because of a flap, and the token may die later. */
const SAY_AGAIN_MS = 10 * MINUTE;

export type ExternalAccount = Account<ExternalCredential>;

export interface ExternalTokensOptions extends TokenServiceLines {
  readonly keys: RedisKeys;
  readonly now: Clock;
  readonly random: Random;
  readonly onRefresh: (refresh: TokenRefresh) => void;
}

/**
 * Tokens that a service of the operator's issues and renews. Here they are only read.
 *
 * Each process asks for itself, once at a time for an app. While the service fails, the token that is held stays in use,
 * and the service is left alone for a pause that doubles from 5 s to 20 s.
 */
export interface ExternalTokens {
  /** @throws the signal's reason when it aborts. */
  current(account: ExternalAccount, signal: AbortSignal): Promise<Result<IssuedToken>>;
  /**
   * Reports that WeChat rejected the token of this generation, for which the service is asked at once. Returns
   * `external-token-stale` while it gives out the same. From the second rejection on it is told so, where it wants to be.
   *
   * @throws the signal's reason when it aborts.
   */
  reject(account: ExternalAccount, generation: string, signal: AbortSignal): Promise<Failure | undefined>;
}

interface Held extends IssuedToken {
  /** From when the service is asked again. */
  askAt: number;
  /** As the service says; `Infinity` where it does not. */
  readonly expiresAt: number;
  /** When the service last gave this token out although it had been rejected. */
  rejectedAt?: number;
}

/** What this process knows of the token of an app. */
interface Known {
  held?: Held | undefined;
  failed?: FailedCall | undefined;
  /** At most one question at a time; the rest of the jobs join it. */
  asking?: Promise<Result<IssuedToken>> | undefined;
  judging?: Promise<Failure | undefined> | undefined;
}

export function createExternalTokens(options: ExternalTokensOptions): ExternalTokens {
  const { redis, http, keys, now, random, onRefresh } = options;
  const apps = new Map<string, Known>();

  function knownOf(appId: string): Known {
    const known = apps.get(appId) ?? {};
    apps.set(appId, known);
    return known;
  }

  async function current(account: ExternalAccount, signal: AbortSignal): Promise<Result<IssuedToken>> {
    const known = knownOf(account.appId);
    const leftMs = (known.held?.askAt ?? 0) - now();
    if (known.held !== undefined && leftMs > 0 && leftMs <= MAX_AGE_MS) return succeed(known.held);
    const asked = await orAbort(ask(account, known), signal);
    if (asked.ok || known.held === undefined || now() >= known.held.expiresAt) return asked;
    return succeed(known.held);
  }

  async function reject(
    account: ExternalAccount,
    generation: string,
    signal: AbortSignal,
  ): Promise<Failure | undefined> {
    const known = knownOf(account.appId);
    if (known.held !== undefined && known.held.generation !== generation) return undefined;
    known.judging ??= judge(account, known, generation).finally(() => {
      known.judging = undefined;
    });
    return orAbort(known.judging, signal);
  }

  async function judge(account: ExternalAccount, known: Known, generation: string): Promise<Failure | undefined> {
    const rejectedBefore = known.held?.rejectedAt;
    if (!isLately(rejectedBefore, REJECTED_AGE_MS)) {
      const again = await ask(account, known);
      if (!again.ok) return again.failure;
      if (again.value.generation !== generation) return undefined;
    }
    // One rejection may be WeChat's: it takes the same token moments later.
    if (isLately(rejectedBefore, REJECTIONS_COUNT_MS) && (await tell(account, generation))) {
      const renewed = await ask(account, known);
      if (!renewed.ok) return renewed.failure;
      if (renewed.value.generation !== generation) return undefined;
    }
    if (known.held !== undefined) {
      known.held.rejectedAt = now();
      known.held.askAt = Math.min(known.held.askAt, now() + REJECTED_AGE_MS);
    }
    return failure('external-token-stale');
  }

  /** Tells the service of the rejection, one process for the whole fleet. Returns true when it has been told just now. */
  async function tell({ appId, credential: { source } }: ExternalAccount, generation: string): Promise<boolean> {
    if (!('url' in source) || source.invalidate === undefined) return false;
    const said = keys.tokenRejected(appId, generation);
    // A full Redis takes no note of it: then nobody may say it.
    const mayBeSaid = await redis
      .eval(SAY_ONCE, 2, said, keys.tokenRejections(appId), SAY_PAUSE_MS, SAY_AGAIN_MS)
      .catch(() => 0);
    if (mayBeSaid !== 1) return false;
    const unheard = await sayRejected({ headers: source.headers, invalidate: source.invalidate }, http);
    if (unheard === undefined) return true;
    onRefresh({ appId, kind: 'external', forced: false, result: 'failed', failure: unheard });
    // It may be said again, after the pause.
    await redis.del(said);
    return false;
  }

  function ask(account: ExternalAccount, known: Known): Promise<Result<IssuedToken>> {
    known.asking ??= question(account, known).finally(() => {
      known.asking = undefined;
    });
    return known.asking;
  }

  async function question({ appId, credential }: ExternalAccount, known: Known): Promise<Result<IssuedToken>> {
    const remembered = rememberedFailure(known.failed, now());
    if (remembered !== undefined) return { ok: false, failure: remembered };
    const served = await askTokenService(credential, { redis, http });
    const report = { appId, kind: 'external', forced: false } as const;
    if (!served.ok) {
      known.failed = failedCall('external', known.failed, served.failure, now(), random);
      onRefresh({ ...report, result: 'failed', failure: served.failure });
      return served;
    }
    known.failed = undefined;
    const before = known.held;
    known.held = heldFrom(served.value, before);
    if (known.held.generation !== before?.generation) onRefresh({ ...report, result: 'issued' });
    return succeed(known.held);
  }

  function heldFrom(served: ServedToken, before: Held | undefined): Held {
    const { token, generation, expiresInMs = Number.POSITIVE_INFINITY } = served;
    const { rejectedAt } = before?.generation === generation ? before : {};
    const ageMs = isLately(rejectedAt, REJECTIONS_COUNT_MS) ? REJECTED_AGE_MS : MAX_AGE_MS;
    return {
      token,
      generation,
      askAt: now() + Math.max(REJECTED_AGE_MS, Math.min(ageMs, expiresInMs * USED_SHARE_OF_LIFE)),
      expiresAt: now() + expiresInMs,
      ...(rejectedAt === undefined ? {} : { rejectedAt }),
    };
  }

  /** True of a time that lies less than so far off; a clock may have been set back since. */
  function isLately(time: number | undefined, withinMs: number): boolean {
    return time !== undefined && Math.abs(now() - time) < withinMs;
  }

  return { current, reject };
}

/** Takes note that a rejection is being told, unless this token's was lately, or another's of the app a moment ago. */
const SAY_ONCE = `
if redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then return 0 end
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
redis.call('SET', KEYS[1], '1', 'PX', ARGV[2])
return 1`;
