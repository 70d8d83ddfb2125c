import type { Result } from '../../failure.ts';
import { Secret } from '../../secret.ts';
import { DAY, SECOND } from '../../time.ts';
import type { OwnAccount } from './account.ts';
import { type ApiEndpoint, callApi, type Json } from './api-call.ts';

/** WeChat tells to reserve 512 characters; those seen have 107 to 157. */
export const MAX_TOKEN_LENGTH = 4_096;
/** Far longer than any is known to live. */
const MAX_LIFE_SECONDS = DAY / SECOND;

export interface TokenAnswer {
  readonly token: Secret;
  /** Remaining life; 300 at least by the documentation, 7200 at most as of today. */
  readonly expiresInMs: number;
}

/** Takes a token and its life out of an answer. @param name of the field that holds the token. */
export function tokenIn(answer: Json, name = 'access_token'): TokenAnswer | undefined {
  const token = answer[name];
  const seconds = Math.min(Number(answer['expires_in']), MAX_LIFE_SECONDS);
  return typeof token === 'string' && token !== '' && token.length <= MAX_TOKEN_LENGTH && seconds > 0
    ? { token: new Secret(token), expiresInMs: seconds * SECOND }
    : undefined;
}

/**
 * Asks WeChat for the access_token of an app by its own secret.
 *
 * A forced call and any of /cgi-bin/token change something at WeChat and are counted there.
 *
 * @param force `stable_token` only: retire the current token at once. Limited to 20 a day, 30 s apart.
 * @throws the signal's reason when it aborts.
 * @see https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
 * @see https://developers.weixin.qq.com/doc/service/en/Basic_Information/Get_access_token.html
 */
export function requestToken(
  { appId, credential }: OwnAccount,
  force: boolean,
  endpoint: ApiEndpoint,
  signal: AbortSignal,
): Promise<Result<TokenAnswer>> {
  const common = { source: 'token', secrets: [credential.secret] } as const;
  const identity = { grant_type: 'client_credential', appid: appId, secret: credential.secret.reveal() };
  const call =
    credential.type === 'token'
      ? ({ ...common, path: '/cgi-bin/token', query: identity, mayRepeat: false } as const)
      : ({
          ...common,
          path: '/cgi-bin/stable_token',
          json: { ...identity, force_refresh: force },
          mayRepeat: !force,
        } as const);
  return callApi(call, (answer) => tokenIn(answer), endpoint, signal);
}
