import { FAILURES, type Failure, fail, type Result, succeed } from '../../failure.ts';
import type { RedisClient } from '../../redis/connect.ts';
import type { RedisKeys } from '../../redis/keys.ts';
import { releaseLease, takeLease } from '../../redis/lease.ts';
import type { Secret } from '../../secret.ts';
import { type Clock, HOUR, SECOND } from '../../time.ts';
import { isNoConnection } from '../http.ts';
import type { Account, AuthorizerCredential, Component } from './account.ts';
import { API_CALL_TIMEOUT_MS } from './api-call.ts';
import type { Authorization, Authorizations } from './authorizations.ts';
import type { AuthorizerAnswer, ComponentApi, ComponentCall } from './component-api.ts';
import type { ComponentTickets } from './component-tickets.ts';
import type { SharedTokens } from './shared-tokens.ts';
import type { TokenAnswer } from './token-endpoint.ts';
import type { TokenSubject } from './token-subject.ts';

export type AuthorizerAccount = Account<AuthorizerCredential>;

export interface AuthorizerTokensParts {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly shared: SharedTokens;
  readonly api: ComponentApi;
  readonly tickets: ComponentTickets;
  readonly authorizations: Authorizations;
  readonly now: Clock;
}

/** The two levels of tokens of a third-party platform: its own, and those of the accounts that have authorised it. */
export interface AuthorizerTokens {
  /** The token of an account. */
  subject(account: AuthorizerAccount): TokenSubject;
  /** Redeems the code of an account if one waits. One process at a time does; the others leave it to it. */
  redeem(account: AuthorizerAccount, signal: AbortSignal): Promise<Failure | undefined>;
}

/** WeChat says in the event when a code expires; none is known to live longer. */
const CODE_LIFE_MS = HOUR;
/** After that the list may have changed too much for a look to go on in its middle. */
const LIST_OFFSET_LIFE_MS = HOUR;
const REDEEM_LEASE_MS = API_CALL_TIMEOUT_MS + 8 * SECOND;
/** Platform tokens tried within a call after the first was rejected. */
const TOKEN_RETRIES = 1;
/** Times the list is asked for a refresh token that does, for one access_token. */
const MAX_LOOKS = 3;

export function createAuthorizerTokens(parts: AuthorizerTokensParts): AuthorizerTokens {
  const { redis, keys, shared, api, tickets, authorizations, now } = parts;

  /** The platform's own token. It needs the ticket that WeChat pushes. */
  function componentSubject(component: Component): TokenSubject {
    return {
      appId: component.appId,
      kind: 'component',
      secret: component.secret,
      request: async (_how, signal) => {
        const ticket = await tickets.read(component);
        const answer: Result<TokenAnswer> =
          ticket === undefined ? fail('component-ticket-missing') : await api.token(component, ticket, signal);
        if (answer.ok || answer.failure.code !== 'component-ticket-missing') return answer;
        if (!(await tickets.mayAskForPush(component.appId))) return answer;
        const started = await api.startPushTicket(component, signal);
        if (!started.ok) return started;
        await tickets.pushAskedFor(component.appId);
        return answer;
      },
    };
  }

  /** Makes a call with the platform's token; a rejected one is replaced once. */
  async function withComponentToken<T>(
    component: Component,
    appId: string,
    signal: AbortSignal,
    call: (call: ComponentCall) => Promise<Result<T>>,
  ): Promise<Result<T>> {
    const subject = componentSubject(component);
    for (let retries = TOKEN_RETRIES; ; retries -= 1) {
      const issued = await shared.current(subject, signal);
      if (!issued.ok) return issued;
      const { token, generation } = issued.value;
      const answer = await call({ component, appId, token });
      if (answer.ok || answer.failure.code !== 'token-rejected' || retries === 0) return answer;
      const refused = await shared.reject(subject, generation, signal);
      if (refused !== undefined) return { ok: false, failure: refused };
    }
  }

  async function requestToken(account: AuthorizerAccount, signal: AbortSignal): Promise<Result<TokenAnswer>> {
    const { appId, credential } = account;
    const { component } = credential;
    const redeemed = await redeemCode(account, signal);
    if (!redeemed.ok || redeemed.value !== undefined) return redeemed as Result<TokenAnswer>;

    const known = await authorizations.read(component, appId);
    let refreshToken = known?.refreshToken ?? credential.refreshToken;
    let answer: Result<AuthorizerAnswer> = fail('authorization-withdrawn', {
      detail: `not among the accounts of ${component.appId}`,
    });
    for (let looks = 0; ; looks += 1) {
      if (refreshToken !== undefined) {
        answer = await refresh(component, appId, known, refreshToken, signal);
        if (answer.ok || !mayBeReplaced(answer.failure) || looks === MAX_LOOKS) return answer;
      }
      // The account may have authorised the platform anew, and we have not been told; or the token that replaced this one
      // was lost with its answer. WeChat lists what is valid, and may replace that too before it is used.
      const listed = await lookUp(component, appId, signal);
      if (!listed.ok) return looks === 0 ? listed : answer;
      if (listed.value === undefined) return answer;
      const isSame = listed.value.reveal() === refreshToken?.reveal();
      if (isSame && (looks > 0 || (!answer.ok && answer.failure.code === 'authorization-withdrawn'))) return answer;
      refreshToken = listed.value;
    }
  }

  async function refresh(
    component: Component,
    appId: string,
    known: Authorization | undefined,
    refreshToken: Secret,
    signal: AbortSignal,
  ): Promise<Result<AuthorizerAnswer>> {
    const answer = await withComponentToken(component, appId, signal, (call) =>
      api.authorizerToken(call, refreshToken, signal),
    );
    // Before the token is used: the refresh token that was sent may be worth nothing by now.
    if (answer.ok) await authorizations.keep(component, appId, known, answer.value.refreshToken);
    return answer;
  }

  /** Goes on where the last look was broken off: a platform may have more accounts than one call has time for. */
  async function lookUp(component: Component, appId: string, signal: AbortSignal): Promise<Result<Secret | undefined>> {
    const key = keys.listOffset(appId);
    const walk = { offset: Number((await redis.get(key)) ?? 0) };
    let isDone = false;
    try {
      const found = await withComponentToken(component, appId, signal, (call) =>
        api.findRefreshToken(call, walk, signal),
      );
      isDone = found.ok;
      return found;
    } finally {
      if (isDone) await redis.del(key);
      else await redis.set(key, walk.offset, 'PX', LIST_OFFSET_LIFE_MS);
    }
  }

  /**
   * Redeems the code of an account. Returns the token that comes with it, or `undefined` when there was nothing to redeem
   * or it could not be: then what was known before still counts.
   */
  async function redeemCode(
    { appId, credential }: AuthorizerAccount,
    signal: AbortSignal,
  ): Promise<Result<TokenAnswer | undefined>> {
    const { component } = credential;
    const pending = await authorizations.read(component, appId);
    if (pending?.code === undefined) return succeed(undefined);
    const lease = await takeLease(redis, keys.redeeming(appId), REDEEM_LEASE_MS);
    if (lease === undefined) return pending.refreshToken === undefined ? fail('token-unavailable') : succeed(undefined);
    try {
      const known = await authorizations.read(component, appId);
      if (known?.code === undefined) return succeed(undefined);
      const { code } = known;
      if (now() - known.at > CODE_LIFE_MS) {
        await authorizations.dropCode(component, appId, known);
        return succeed(undefined);
      }
      const answer = await withComponentToken(component, appId, signal, (call) => api.queryAuth(call, code, signal));
      if (answer.ok) {
        await authorizations.keep(component, appId, known, answer.value.refreshToken);
        return answer;
      }
      // What passes by itself, and what somebody must correct first, leaves the code for another try.
      if (!isOfCode(answer.failure)) return answer;
      await authorizations.dropCode(component, appId, known);
      return succeed(undefined);
    } finally {
      await releaseLease(redis, lease);
    }
  }

  return {
    subject: (account) => ({
      appId: account.appId,
      kind: 'authorizer',
      secret: account.credential.component.secret,
      request: (_how, signal) => bounded(signal, (limit) => requestToken(account, limit)),
    }),
    redeem: async (account, signal) => {
      const redeemed = await bounded(signal, (limit) => redeemCode(account, limit));
      // Somebody else is at it.
      return redeemed.ok || redeemed.failure.code === 'token-unavailable' ? undefined : redeemed.failure;
    },
  };
}

/** True when another refresh token may do: this one is refused, or the answer that brought another one was lost. */
function mayBeReplaced(failure: Failure): boolean {
  const { code } = failure;
  return code === 'authorization-withdrawn' || (code === 'weixin-unreachable' && !isNoConnection(failure));
}

/** True when a code could not be redeemed for a reason of its own: it has expired, has been used up, or brings no token. */
function isOfCode({ code, errcode }: Failure): boolean {
  if (code === 'api-unauthorized' && errcode === undefined) return true;
  const isOdd = code === 'unclassified' || code === 'weixin-request-refused' || FAILURES[code].action === 'dead';
  return errcode !== undefined && isOdd;
}

/** Several calls may be needed: together they take no longer than one, since a lease outlives one. */
async function bounded<T>(signal: AbortSignal, work: (limit: AbortSignal) => Promise<Result<T>>): Promise<Result<T>> {
  const timeout = AbortSignal.timeout(API_CALL_TIMEOUT_MS);
  try {
    return await work(AbortSignal.any([signal, timeout]));
  } catch (error) {
    // Most likely somebody who held a lease has died.
    if (!signal.aborted && timeout.aborted) return fail('token-unavailable', { detail: 'third-party platform' });
    throw error;
  }
}
