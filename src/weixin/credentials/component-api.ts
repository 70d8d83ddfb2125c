import { fail, type Result } from '../../failure.ts';
import { Secret } from '../../secret.ts';
import type { Component } from './account.ts';
import { type ApiCall, type ApiEndpoint, callApi, type Json } from './api-call.ts';
import { type TokenAnswer, tokenIn } from './token-endpoint.ts';

/** An account's token, and the refresh token that came with it: the one before may be worth nothing from now on. */
export interface AuthorizerAnswer extends TokenAnswer {
  readonly refreshToken: Secret;
}

/**
 * The calls of a third-party platform that tokens need. All but the first two are made with a component_access_token.
 *
 * Each but the last changes something or is counted, so that it is not repeated once it may have been done.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/Third-party_Platforms/2.0/api/ThirdParty/token/component_access_token.html
 */
export interface ComponentApi {
  /** api_component_token. */
  token(component: Component, ticket: Secret, signal: AbortSignal): Promise<Result<TokenAnswer>>;
  /** api_start_push_ticket: has WeChat push tickets again. */
  startPushTicket(component: Component, signal: AbortSignal): Promise<Result<true>>;
  /** api_query_auth: redeems the code of a new authorisation. The code is good for one use. */
  queryAuth(call: ComponentCall, code: Secret, signal: AbortSignal): Promise<Result<AuthorizerAnswer>>;
  /** api_authorizer_token. */
  authorizerToken(call: ComponentCall, refreshToken: Secret, signal: AbortSignal): Promise<Result<AuthorizerAnswer>>;
  /**
   * Looks through api_get_authorizer_list for the refresh token of an app; `undefined` where it is not among those who
   * have authorised the platform.
   */
  findRefreshToken(call: ComponentCall, walk: ListWalk, signal: AbortSignal): Promise<Result<Secret | undefined>>;
}

/** Which app is meant, and what the call is made with. */
export interface ComponentCall {
  readonly component: Component;
  readonly appId: string;
  readonly token: Secret;
}

/** How far a look through the list has come: it may take longer than one call is given. */
export interface ListWalk {
  offset: number;
}

/** WeChat lists so many at most. */
const LIST_PAGE = 500;
/** Each of them is some 150 bytes. */
const LIST_MAX_BYTES = 1024 * 1024;

export function createComponentApi(endpoint: ApiEndpoint): ComponentApi {
  function call<T>(
    path: string,
    json: object,
    { source = 'component', mayRepeat = false, ...rest }: Pick<ApiCall, 'secrets'> & Partial<ApiCall>,
    read: (answer: Json) => T | undefined,
    signal: AbortSignal,
  ): Promise<Result<T>> {
    return callApi({ ...rest, path: `/cgi-bin/component/${path}`, json, mayRepeat, source }, read, endpoint, signal);
  }

  return {
    token: ({ appId, secret }, ticket, signal) =>
      call(
        'api_component_token',
        {
          component_appid: appId,
          component_appsecret: secret.reveal(),
          component_verify_ticket: ticket.reveal(),
        },
        { secrets: [secret, ticket], source: 'component-token' },
        (answer) => tokenIn(answer, 'component_access_token'),
        signal,
      ),

    startPushTicket: ({ appId, secret }, signal) =>
      call(
        'api_start_push_ticket',
        { component_appid: appId, component_secret: secret.reveal() },
        { secrets: [secret], source: 'component-token' },
        (answer) => (answer['errcode'] === 0 ? true : undefined),
        signal,
      ),

    queryAuth: async ({ component, appId, token }, code, signal) => {
      const answer = await call(
        'api_query_auth',
        { component_appid: component.appId, authorization_code: code.reveal() },
        { query: withToken(token), secrets: [token, code] },
        (json) => {
          const info = json['authorization_info'];
          if (typeof info !== 'object' || info === null || Reflect.get(info, 'authorizer_appid') !== appId)
            return undefined;
          // There is none for an account that may not call the API.
          return 'authorizer_access_token' in info ? authorizerTokenIn(info as Json) : 'no token';
        },
        signal,
      );
      if (!answer.ok) return answer;
      const { value } = answer;
      return value === 'no token'
        ? fail('api-unauthorized', { detail: 'the authorisation brings no token' })
        : { ok: true, value };
    },

    authorizerToken: ({ component, appId, token }, refreshToken, signal) =>
      call(
        'api_authorizer_token',
        {
          component_appid: component.appId,
          authorizer_appid: appId,
          authorizer_refresh_token: refreshToken.reveal(),
        },
        { query: withToken(token), secrets: [token, refreshToken] },
        authorizerTokenIn,
        signal,
      ),

    findRefreshToken: async ({ component, appId, token }, walk, signal) => {
      for (;;) {
        const { offset } = walk;
        const page = await call(
          'api_get_authorizer_list',
          { component_appid: component.appId, offset, count: LIST_PAGE },
          // It changes nothing.
          { query: withToken(token), secrets: [token], mayRepeat: true, maxBytes: LIST_MAX_BYTES },
          (answer) => pageIn(answer, appId),
          signal,
        );
        if (!page.ok) return page;
        const { refreshToken, listed, total } = page.value;
        walk.offset += listed;
        const isEnd = listed === 0 || walk.offset >= total;
        if (refreshToken !== undefined || isEnd) return { ok: true, value: refreshToken };
      }
    },
  };
}

function withToken(token: Secret): { access_token: string; component_access_token: string } {
  // The second is the name that it had before: whoever knows one ignores the other.
  return { access_token: token.reveal(), component_access_token: token.reveal() };
}

function authorizerTokenIn(answer: Json): AuthorizerAnswer | undefined {
  const token = tokenIn(answer, 'authorizer_access_token');
  const refreshToken = answer['authorizer_refresh_token'];
  if (token === undefined || typeof refreshToken !== 'string' || refreshToken === '') return undefined;
  return { ...token, refreshToken: new Secret(refreshToken) };
}

function pageIn(
  answer: Json,
  appId: string,
): { refreshToken: Secret | undefined; listed: number; total: number } | undefined {
  const list = answer['list'];
  if (!Array.isArray(list)) return undefined;
  const entry = (list as Json[]).find((one) => one['authorizer_appid'] === appId);
  const refreshToken = entry?.['refresh_token'];
  return {
    refreshToken: typeof refreshToken === 'string' && refreshToken !== '' ? new Secret(refreshToken) : undefined,
    listed: list.length,
    // A page may be shorter than asked for, and not the last.
    total: Number(answer['total_count'] ?? 0) || (list.length < LIST_PAGE ? 0 : Number.POSITIVE_INFINITY),
  };
}
