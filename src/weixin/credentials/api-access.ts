import type { Secret } from '../../secret.ts';
import type { ErrorSource } from '../error-codes.ts';
import type { Account } from './account.ts';

/** How media are asked for on behalf of an app. The one place that knows is `accessOf`. */
export interface ApiAccess {
  /** True for the sidecar of WeChat Cloud Run, which intercepts plain http only. */
  readonly plainHttp: boolean;
  /** What is sent to prove whose call it is; absent where the sidecar adds it. */
  readonly token?: { readonly parameter: 'access_token' | 'cloudbase_access_token'; readonly value: Secret };
  /** Names the app in an environment that several share. */
  readonly fromAppId?: string;
  /** Whose words an errcode is taken for. */
  readonly source: Extract<ErrorSource, 'media' | 'cloud'>;
}

/**
 * Says how calls for an app are made.
 *
 * @param token what the token source gave for it.
 * @see https://developers.weixin.qq.com/miniprogram/dev/wxcloudrun/src/guide/weixin/open.html the sidecar
 * @see https://developers.weixin.qq.com/doc/oplatform/Third-party_Platforms/2.0/api/cloudbase/wxtoken.html the token
 */
export function accessOf({ appId, credential }: Account, token: Secret): ApiAccess {
  if (credential.type !== 'cloud')
    return { plainHttp: false, token: { parameter: 'access_token', value: token }, source: 'media' };
  return {
    plainHttp: credential.mode === 'sidecar',
    ...(credential.mode === 'sidecar' ? {} : { token: { parameter: 'cloudbase_access_token', value: token } }),
    ...(credential.namesApp ? { fromAppId: appId } : {}),
    source: 'cloud',
  };
}

/** Returns where a call goes. The path holds the token: it belongs into no log. */
export function addressOf(
  { plainHttp, token, fromAppId }: ApiAccess,
  baseUrl: URL,
  path: string,
  query: Readonly<Record<string, string>>,
): { readonly origin: string; readonly path: string } {
  const parameters = new URLSearchParams({
    ...(token === undefined ? {} : { [token.parameter]: token.value.reveal() }),
    ...(fromAppId === undefined ? {} : { from_appid: fromAppId }),
    ...query,
  });
  // The port of https would be that of no sidecar.
  const origin = plainHttp && baseUrl.protocol === 'https:' ? `http://${baseUrl.hostname}` : baseUrl.origin;
  return { origin, path: `${baseUrl.pathname.replace(/\/$/, '')}${path}?${parameters}` };
}
