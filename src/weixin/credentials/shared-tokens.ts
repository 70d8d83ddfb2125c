import { setTimeout as sleep } from 'node:timers/promises';
import { orAbort } from '../../abort.ts';
import { type Failure, fail, type Result, succeed } from '../../failure.ts';
import type { RedisClient } from '../../redis/connect.ts';
import type { RedisKeys } from '../../redis/keys.ts';
import { type Lease, releaseLease, takeLease } from '../../redis/lease.ts';
import { between, type Clock, elapsed, type Random, SECOND } from '../../time.ts';
import { API_CALL_TIMEOUT_MS } from './api-call.ts';
import { failedCall, rememberedFailure } from './failed-call.ts';
import type { IssuedToken, TokenRefresh } from './issued-token.ts';
import {
  newGeneration,
  readTokenState,
  type TokenRecord,
  type TokenState,
  writeCountedCalls,
  writeFailedCall,
  writeTokenRecord,
} from './token-record.ts';
import { type CountedCall, recentRejections, remedyFor, renewAt, withCall } from './token-renewal.ts';
import { issuesAnew, type SharedTokenKind, type TokenSubject } from './token-subject.ts';

/** Longer than the call it protects can take, so that two holders never call at once. */
const LEASE_MS = API_CALL_TIMEOUT_MS + 8 * SECOND;
/** Longer than a lease: a holder that died is waited out. */
const WAIT_FOR_OTHERS_MS = LEASE_MS + 5 * SECOND;
const POLL_MS = [50, 250] as const;
/** After a failed early renewal, while the token still holds. */
const RENEWAL_PAUSE_MS = 15 * SECOND;
const LEASE_LOST = 'the lease was lost';

export interface SharedTokensOptions {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly now: Clock;
  readonly random: Random;
  readonly onRefresh: (refresh: TokenRefresh) => void;
}

interface Held {
  readonly record: TokenRecord;
  /** From when this process asks for the next one. */
  renewAt: number;
}

/** Why WeChat is asked. */
type Cause = 'renewal' | 'rejection' | 'force';

/**
 * Tokens that the fleet fetches itself and shares through Redis.
 *
 * Each process holds the tokens it has seen in memory. Redis is asked only when one is due or was rejected; WeChat is
 * asked by the holder of a lease, everybody else waits for what it brings: a token, or a failure, which then stands for
 * the whole fleet for a pause that doubles from 5 s to 20 s, or to one or two minutes.
 */
export interface SharedTokens {
  /** @throws the signal's reason when it aborts. */
  current(subject: TokenSubject, signal: AbortSignal): Promise<Result<IssuedToken>>;
  /**
   * Reports that WeChat rejected the token of this generation. Returns the failure to fetch another, if there was one.
   *
   * @throws the signal's reason when it aborts.
   */
  reject(subject: TokenSubject, generation: string, signal: AbortSignal): Promise<Failure | undefined>;
}

export function createSharedTokens({ redis, keys, now, random, onRefresh }: SharedTokensOptions): SharedTokens {
  const held = new Map<string, Held>();
  /** At most one question to Redis or WeChat for an app in this process; the rest of its jobs join it. */
  const running = new Map<string, Promise<unknown>>();

  async function current(subject: TokenSubject, signal: AbortSignal): Promise<Result<IssuedToken>> {
    const known = held.get(subject.appId);
    if (known !== undefined && now() < known.renewAt) return succeed(issued(known.record));
    return join(`current ${subject.appId}`, () => renew(subject, signal), signal);
  }

  async function renew(subject: TokenSubject, signal: AbortSignal): Promise<Result<IssuedToken>> {
    const { record, failed } = await readState(subject);
    const remembered = rememberedFailure(failed, now());
    if (record === undefined || now() >= record.expiresAt) {
      if (remembered !== undefined) return { ok: false, failure: remembered };
      const fetched = await withLease(subject, record?.generation, WAIT_FOR_OTHERS_MS, signal, (lease, latest) =>
        fetchToken(subject, latest, 'renewal', lease, signal),
      );
      return fetched.ok ? succeed(issued(fetched.value)) : fetched;
    }
    if (now() < hold(subject, record).renewAt) return succeed(issued(record));

    // Due, but it still holds: one worker fetches the next, nobody waits for it.
    if (remembered === undefined) {
      const fetched = await withLease(subject, record.generation, 0, signal, (lease, latest) =>
        fetchToken(subject, latest, 'renewal', lease, signal),
      );
      if (fetched.ok) return succeed(issued(fetched.value));
    }
    hold(subject, record).renewAt = Math.min(now() + RENEWAL_PAUSE_MS, record.expiresAt);
    return succeed(issued(record));
  }

  async function reject(subject: TokenSubject, generation: string, signal: AbortSignal): Promise<Failure | undefined> {
    const known = held.get(subject.appId);
    if (known !== undefined && known.record.generation !== generation) return undefined;
    return join(`reject ${subject.appId} ${generation}`, () => replace(subject, generation, signal), signal);
  }

  async function replace(subject: TokenSubject, generation: string, signal: AbortSignal): Promise<Failure | undefined> {
    const { record, calls, failed } = await readState(subject);
    if (record === undefined) {
      held.delete(subject.appId);
      return undefined;
    }
    hold(subject, record);
    if (record.generation !== generation) return undefined;
    const remembered = rememberedFailure(failed, now());
    if (remembered !== undefined) return remembered;
    const { kind } = subject;
    if (remedyFor(kind, record, calls, now()) === 'none') return undefined;

    const fetched = await withLease(subject, generation, WAIT_FOR_OTHERS_MS, signal, async (lease, latest) => {
      const remedy = latest.record === undefined ? 'ask' : remedyFor(kind, latest.record, latest.calls, now());
      // Somebody else has asked while we waited for the lease, and got the same token.
      if (remedy === 'none' && latest.record !== undefined) return succeed(latest.record);
      return fetchToken(subject, latest, remedy === 'force' ? 'force' : 'rejection', lease, signal);
    });
    return fetched.ok ? undefined : fetched.failure;
  }

  /**
   * Runs `fetch` as the only one in the fleet, unless the token of `generation` has been replaced meanwhile: then
   * returns the new one; or somebody else has tried in vain: then returns what it met. Waits `patienceMs` at most for
   * somebody else who is at it.
   */
  async function withLease(
    subject: TokenSubject,
    generation: string | undefined,
    patienceMs: number,
    signal: AbortSignal,
    fetch: (lease: Lease, latest: TokenState) => Promise<Result<TokenRecord>>,
  ): Promise<Result<TokenRecord>> {
    const giveUpAt = elapsed() + patienceMs;
    for (;;) {
      const lease = await takeLease(redis, keys.tokenLease(subject.appId), LEASE_MS);
      try {
        const latest = await readState(subject);
        const { record, failed } = latest;
        if (record !== undefined && record.generation !== generation) {
          hold(subject, record);
          return succeed(record);
        }
        const remembered = rememberedFailure(failed, now());
        if (remembered !== undefined) return { ok: false, failure: remembered };
        if (lease !== undefined) return await fetch(lease, latest);
      } finally {
        if (lease !== undefined) await releaseLease(redis, lease);
      }
      if (elapsed() >= giveUpAt) return fail('token-unavailable');
      await sleep(between(...POLL_MS, random), undefined, { signal });
    }
  }

  /** Asks WeChat and writes what it answers, be it a token or a failure. Only under the lease. */
  async function fetchToken(
    subject: TokenSubject,
    { record: before, calls, failed }: TokenState,
    cause: Cause,
    lease: Lease,
    signal: AbortSignal,
  ): Promise<Result<TokenRecord>> {
    const place = { redis, key: keys.token(subject.appId), lease };
    const { kind } = subject;
    const counted = countedCall(kind, cause);
    if (counted !== undefined && !(await writeCountedCalls(place, withCall(calls, counted, now()))))
      return fail('token-unavailable', { detail: LEASE_LOST });

    // An endpoint that is known to fail is asked once a pause.
    const once = failed === undefined ? {} : ({ blipRetries: 0 } as const);
    const forced = cause === 'force';
    const answer = await subject.request({ force: forced, ...once }, signal);
    const report = { appId: subject.appId, kind, forced };
    if (!answer.ok) {
      onRefresh({ ...report, result: 'failed', failure: answer.failure });
      if (isOfAnotherToken(kind, answer.failure)) return answer;
      const remembered = failedCall(kind, failed, answer.failure, now(), random);
      await writeFailedCall(place, subject, remembered);
      return { ok: false, failure: remembered.failure };
    }
    const { token, expiresInMs } = answer.value;
    const same = before?.token.reveal() === token.reveal();
    onRefresh({ ...report, result: same ? 'same' : 'issued' });

    const confirmed = { confirmedAt: now(), expiresAt: now() + expiresInMs };
    const record: TokenRecord =
      same && before !== undefined
        ? { ...before, ...confirmed, rejections: recentRejections(before, now()) + (cause === 'renewal' ? 0 : 1) }
        : { token, generation: newGeneration(), obtainedAt: now(), rejections: 0, ...confirmed };
    // Held even if it can't be written: a full Redis must not make every job ask WeChat.
    hold(subject, record);
    if (!(await writeTokenRecord(place, subject, record))) {
      held.delete(subject.appId);
      return fail('token-unavailable', { detail: LEASE_LOST });
    }
    return succeed(record);
  }

  function readState(subject: TokenSubject): Promise<TokenState> {
    return readTokenState(redis, keys.token(subject.appId), subject);
  }

  function hold(subject: TokenSubject, record: TokenRecord): Held {
    const known = held.get(subject.appId);
    if (
      known !== undefined &&
      known.record.generation === record.generation &&
      known.record.expiresAt === record.expiresAt
    ) {
      return known;
    }
    const fresh = { record, renewAt: renewAt(record, random) };
    held.set(subject.appId, fresh);
    return fresh;
  }

  async function join<T>(name: string, start: () => Promise<T>, signal: AbortSignal): Promise<T> {
    const others = running.get(name) as Promise<T> | undefined;
    if (others !== undefined) {
      try {
        return await orAbort(others, signal);
      } catch (error) {
        // The job that asked for all of us was stopped: ask again for ourselves.
        if (signal.aborted) throw error;
        return join(name, start, signal);
      }
    }
    const own = start().finally(() => running.delete(name));
    running.set(name, own);
    return orAbort(own, signal);
  }

  return { current, reject };
}

/** How a call counts at WeChat, if it is made for this cause. What is spent on renewals is bounded by the life of tokens. */
function countedCall(kind: SharedTokenKind, cause: Cause): CountedCall | undefined {
  if (cause === 'force') return 'forced';
  return issuesAnew(kind) && cause === 'rejection' ? 'replaced' : undefined;
}

/**
 * True where nobody was asked for this token, since it waits for another one: its holder has died; or the platform of an
 * account has no ticket, which is remembered of the platform, and forgotten there when a ticket comes.
 */
function isOfAnotherToken(kind: SharedTokenKind, { code }: Failure): boolean {
  return code === 'token-unavailable' || (kind === 'authorizer' && code === 'component-ticket-missing');
}

function issued({ token, generation }: TokenRecord): IssuedToken {
  return { token, generation };
}
