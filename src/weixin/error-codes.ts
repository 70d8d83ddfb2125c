import { FAILURES, type FailureCode } from '../failure.ts';

interface ErrorCodeRow {
  readonly failure: FailureCode;
  /** WeChat's words, or what the code is known to mean. */
  readonly meaning: string;
}

/**
 * What each `errcode` means when media/get answers it. Matched by number, never by text.
 *
 * @see https://developers.weixin.qq.com/doc/channels/API/basics/commErrCode.html the common codes
 * @see https://developers.weixin.qq.com/doc/service/api/material/temporary/api_getmedia the page of media/get
 */
export const MEDIA_ERROR_CODES = {
  [-1]: { failure: 'weixin-busy', meaning: 'system error' },
  [-1000]: { failure: 'weixin-busy', meaning: 'system error' },
  // An answer of success in JSON carries a video_url; without one it says nothing.
  0: { failure: 'weixin-unexpected-reply', meaning: 'ok' },
  // Users saw it come and go with a good token, so it says nothing about the AppSecret here.
  40001: { failure: 'token-rejected', meaning: 'invalid credential, access_token is invalid or not latest' },
  40002: { failure: 'weixin-request-refused', meaning: 'invalid grant_type' },
  40003: { failure: 'weixin-request-refused', meaning: 'invalid openid' },
  40004: { failure: 'media-type-unsupported', meaning: 'invalid media type' },
  40005: { failure: 'media-type-unsupported', meaning: 'invalid file type' },
  40006: { failure: 'media-type-unsupported', meaning: 'invalid media size' },
  40007: { failure: 'invalid-media-id', meaning: 'invalid media_id' },
  40013: { failure: 'app-id-invalid', meaning: 'invalid appid' },
  40014: { failure: 'token-rejected', meaning: 'invalid access_token' },
  40066: { failure: 'weixin-request-refused', meaning: 'invalid url' },
  40118: { failure: 'invalid-media-id', meaning: 'invalid media_id size' },
  40121: { failure: 'invalid-media-id', meaning: 'invalid media_id type' },
  40125: { failure: 'app-secret-invalid', meaning: 'invalid appsecret' },
  40164: { failure: 'ip-not-allowed', meaning: 'invalid ip, not in whitelist' },
  40243: { failure: 'app-secret-frozen', meaning: 'AppSecret frozen' },
  41001: { failure: 'token-rejected', meaning: 'access_token missing' },
  41002: { failure: 'weixin-request-refused', meaning: 'appid missing' },
  41004: { failure: 'weixin-request-refused', meaning: 'appsecret missing' },
  41006: { failure: 'weixin-request-refused', meaning: 'media_id missing' },
  41018: { failure: 'weixin-request-refused', meaning: 'missing component_appid' },
  42001: { failure: 'token-rejected', meaning: 'access_token expired' },
  42002: { failure: 'authorization-withdrawn', meaning: 'refresh_token expired' },
  42006: { failure: 'token-rejected', meaning: 'component_access_token expired' },
  42007: { failure: 'authorization-withdrawn', meaning: 'access_token and refresh_token exception' },
  43001: { failure: 'weixin-request-refused', meaning: 'require GET method' },
  43002: { failure: 'weixin-request-refused', meaning: 'require POST method' },
  43003: { failure: 'weixin-request-refused', meaning: 'require https' },
  43104: { failure: 'api-unauthorized', meaning: 'this appid does not have permission' },
  44002: { failure: 'weixin-request-refused', meaning: 'empty post data' },
  45009: { failure: 'quota-exhausted', meaning: 'reach max api daily quota limit' },
  45011: { failure: 'rate-limited', meaning: 'api minute-quota reach limit, must slower, retry next minute' },
  45035: { failure: 'ip-not-allowed', meaning: 'access clientip is not registered, not in ip-white-list' },
  46001: { failure: 'invalid-media-id', meaning: 'media data no exist' },
  47001: { failure: 'weixin-request-refused', meaning: 'data format error' },
  48001: { failure: 'api-unauthorized', meaning: 'api unauthorized' },
  48004: { failure: 'app-restricted', meaning: 'api forbidden for irregularities' },
  48006: { failure: 'quota-exhausted', meaning: 'forbid to clear quota because of reaching the limit' },
  48017: { failure: 'access-point-retired', meaning: 'the access point is retired' },
  50001: { failure: 'api-unauthorized', meaning: 'user unauthorized' },
  50002: { failure: 'app-restricted', meaning: 'user limited' },
  50004: { failure: 'app-restricted', meaning: 'user not allowed to use access_token' },
  61003: { failure: 'authorization-withdrawn', meaning: 'component is not authorized by this account' },
  61004: { failure: 'ip-not-allowed', meaning: 'access clientip is not registered' },
  61005: { failure: 'component-misconfigured', meaning: 'component ticket is expired' },
  61006: { failure: 'component-misconfigured', meaning: 'component ticket is invalid' },
  61007: { failure: 'api-unauthorized', meaning: 'api is unauthorized to component' },
  61011: { failure: 'component-misconfigured', meaning: 'invalid component' },
  61014: { failure: 'weixin-request-refused', meaning: 'must use component token for component api' },
  61015: { failure: 'weixin-request-refused', meaning: 'must use biz account token' },
  61016: { failure: 'api-unauthorized', meaning: 'function category of API need be confirmed by component' },
  61017: { failure: 'api-unauthorized', meaning: 'function category of API not authorized' },
  61023: { failure: 'authorization-withdrawn', meaning: 'refresh_token is invalid' },
  61024: { failure: 'weixin-request-refused', meaning: 'must use api_component_token' },
  85107: { failure: 'cloud-call-misconfigured', meaning: 'url not in the allow-list of the open-interface service' },
  85112: { failure: 'cloud-call-misconfigured', meaning: 'cloudbase_secret not found' },
  85113: { failure: 'cloud-call-not-ready', meaning: 'cloudbase_token not ready' },
  89501: { failure: 'ip-confirmation-pending', meaning: 'a request for this IP is pending' },
  89502: { failure: 'ip-confirmation-pending', meaning: 'waiting for the administrator' },
  89503: { failure: 'ip-confirmation-pending', meaning: 'needs the confirmation of the administrator' },
  89504: { failure: 'ip-confirmation-pending', meaning: 'waiting for the administrator' },
  89505: { failure: 'ip-confirmation-pending', meaning: 'waiting for the administrator' },
  89506: { failure: 'ip-confirmation-pending', meaning: 'the administrator refused this IP for 24 hours' },
  89507: { failure: 'ip-confirmation-pending', meaning: 'the administrator refused this IP for 1 hour' },
} as const satisfies Record<number, ErrorCodeRow>;

/**
 * Where the token endpoints mean something else by the same number.
 *
 * @see https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
 */
export const TOKEN_ERROR_CODES = {
  // Here it is the AppSecret that is wrong.
  40001: { failure: 'app-secret-invalid', meaning: 'invalid credential: AppSecret error' },
  0: { failure: 'weixin-unexpected-reply', meaning: 'ok' },
  // Counted apart from media/get: 2,000 calls of /cgi-bin/token a day, 500,000 of stable_token.
  45009: { failure: 'token-quota-exhausted', meaning: 'reach max api daily quota limit' },
} as const satisfies Record<number, ErrorCodeRow>;

/**
 * Where the endpoints of third-party platforms mean something else by the same number. They are called with a
 * component_access_token, so a rejected token is that one.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/Third-party_Platforms/2.0/api/ThirdParty/token/component_access_token.html
 */
export const COMPONENT_ERROR_CODES = {
  0: { failure: 'weixin-unexpected-reply', meaning: 'ok' },
  40001: { failure: 'token-rejected', meaning: 'invalid credential, access_token is invalid or not latest' },
  40013: { failure: 'component-misconfigured', meaning: 'invalid appid' },
  40014: { failure: 'token-rejected', meaning: 'invalid access_token' },
  40125: { failure: 'component-misconfigured', meaning: 'invalid appsecret' },
  41001: { failure: 'token-rejected', meaning: 'access_token missing' },
  42001: { failure: 'token-rejected', meaning: 'access_token expired' },
  42006: { failure: 'token-rejected', meaning: 'component_access_token expired' },
  45009: { failure: 'token-quota-exhausted', meaning: 'reach max api daily quota limit' },
  61005: { failure: 'component-ticket-missing', meaning: 'component ticket is expired' },
  61006: { failure: 'component-ticket-missing', meaning: 'component ticket is invalid' },
} as const satisfies Record<number, ErrorCodeRow>;

/**
 * Where calls in WeChat Cloud Run mean something else by the same number.
 *
 * @see https://developers.weixin.qq.com/minigame/dev/wxcloudrun/src/guide/weixin/faq.html
 */
export const CLOUD_ERROR_CODES = {
  // Nobody has added a token on the way.
  41001: { failure: 'cloud-call-not-ready', meaning: 'access_token missing' },
} as const satisfies Record<number, ErrorCodeRow>;

/**
 * Who answered the code: media/get, the same called in WeChat Cloud Run, an endpoint that issues an app's token by its own
 * secret, one of a platform, or the one that issues a platform's token by its secret.
 */
export type ErrorSource = 'media' | 'cloud' | 'token' | 'component' | 'component-token';

/** Returns our failure code for WeChat's `errcode`; a number no table knows is `unclassified`. */
export function failureOfErrcode(errcode: number, source: ErrorSource): FailureCode {
  const general: Readonly<Record<number, ErrorCodeRow>> = MEDIA_ERROR_CODES;
  const row = general[errcode];
  if (source === 'media') return row?.failure ?? 'unclassified';
  if (source === 'cloud') {
    const ofCloud: Readonly<Record<number, ErrorCodeRow>> = CLOUD_ERROR_CODES;
    return (ofCloud[errcode] ?? row)?.failure ?? 'unclassified';
  }
  const special: Readonly<Record<number, ErrorCodeRow>> =
    source === 'token' ? TOKEN_ERROR_CODES : COMPONENT_ERROR_CODES;
  const code = special[errcode]?.failure;
  // Here no token was sent: what is wrong is the secret.
  if (code === 'token-rejected' && source === 'component-token') return 'component-misconfigured';
  return code ?? (row === undefined ? 'unclassified' : asTokenFailure(row.failure));
}

/**
 * A call for a token carries neither a media_id nor an access_token. What is said of one there is odd, and no reason to
 * give a media up or to take a token for rejected.
 */
function asTokenFailure(code: FailureCode): FailureCode {
  return FAILURES[code].action === 'dead' || code === 'token-rejected' || code === 'quota-exhausted'
    ? 'weixin-unexpected-reply'
    : code;
}
