/**
 * Everything that can go wrong with a media, and what the program does about it.
 *
 * Adapters (WeChat, store, body inspection) turn foreign errors into one of these codes, once, at the edge. Nothing
 * further in looks at an `errcode`, an HTTP status or an error text again.
 *
 * - `retry`: tried again, spaced by the retry schedule, until shortly before the deadline.
 * - `wait`: nothing of this app can succeed now; the app's gate is closed and opened again by a probe. Uses nothing up.
 * - `dead`: no later try can succeed; the media becomes a dead letter at once.
 */
export type Action = 'retry' | 'wait' | 'dead';

interface FailureRule {
  readonly action: Action;
  /** What an operator should know or do, in one sentence. */
  readonly hint: string;
}

export const FAILURES = {
  // WeChat, passing
  'weixin-busy': { action: 'retry', hint: 'WeChat answered -1 (system error). It passes by itself.' },
  'weixin-unreachable': {
    action: 'retry',
    hint: 'No connection to the WeChat API (DNS, TCP, TLS or a reset). Check the network and WEIXIN_API_BASE_URL.',
  },
  'weixin-timeout': { action: 'retry', hint: 'WeChat did not answer in time, or the bytes stopped coming.' },
  'weixin-bad-gateway': {
    action: 'retry',
    hint: 'Something between us and WeChat answered instead of it (an HTTP status other than 200, or a web page).',
  },
  'weixin-unexpected-reply': {
    action: 'retry',
    hint: 'WeChat answered with neither media nor a known error. The raw text is in the attempt.',
  },
  'weixin-request-refused': {
    action: 'retry',
    hint: 'WeChat says that our request is malformed: a defect of this program or a proxy. Please report it.',
  },
  'token-rejected': {
    action: 'retry',
    hint: 'WeChat rejects an access_token that it has just issued. Make sure that nothing else issues tokens for this app.',
  },
  'token-unavailable': {
    action: 'retry',
    hint: 'Another worker is fetching the access_token and did not finish in time.',
  },
  'token-service-failed': {
    action: 'retry',
    hint: 'The token service of this app gave no access_token. The attempt has its HTTP status or the error; check the service and its url, headers and path.',
  },
  'hd-voice-refused': {
    action: 'retry',
    hint: 'WeChat serves this app no HD voice: it takes a verified account, and in WeChat Cloud Run /cgi-bin/media/get/jssdk must be allowed. Other media go on.',
  },
  'cloud-call-not-ready': {
    action: 'retry',
    hint: 'The open-interface service of WeChat Cloud Run is off, or not ready: it takes a few minutes after start, as does its token file.',
  },

  // WeChat, per app: the gate closes
  'quota-exhausted': {
    action: 'wait',
    hint: 'The daily quota of media/get is used up for this app. It is renewed at midnight, Beijing time.',
  },
  'token-quota-exhausted': {
    action: 'wait',
    hint: 'WeChat gives out no more access_tokens for this app today. Find what else asks for them, or clear the quota in its console; it is renewed at midnight, Beijing time.',
  },
  'rate-limited': {
    action: 'wait',
    hint: 'More calls a minute than this app is allowed. It is renewed by the minute.',
  },
  'app-secret-invalid': { action: 'wait', hint: 'WeChat does not accept the AppSecret of this app. Correct it.' },
  'app-secret-frozen': {
    action: 'wait',
    hint: 'The AppSecret of this app is frozen. Unfreeze it in the WeChat console.',
  },
  'app-id-invalid': { action: 'wait', hint: 'WeChat does not know this appId. Correct it.' },
  'app-not-configured': {
    action: 'wait',
    hint: 'This worker has no credential for the app. Add it to WEIXIN_ACCOUNTS_FILE and restart.',
  },
  'ip-not-allowed': {
    action: 'wait',
    hint: 'The address that WeChat saw is not on the IP allow-list of this app. Add it; it takes 5 to 10 minutes.',
  },
  'ip-confirmation-pending': {
    action: 'wait',
    hint: 'The administrator of this app must confirm a call from a new IP address in WeChat.',
  },
  'api-unauthorized': {
    action: 'wait',
    hint: 'This app may not call media/get, or may have no access_token: its kind, its verification or a missing permission set forbids it.',
  },
  'app-restricted': { action: 'wait', hint: 'WeChat has banned or limited this app or the API for it.' },
  'authorization-withdrawn': {
    action: 'wait',
    hint: 'The account is no longer authorised to this third-party platform. Authorise it again.',
  },
  'component-misconfigured': {
    action: 'wait',
    hint: 'WeChat does not accept the credential of the third-party platform. Correct it.',
  },
  'component-ticket-missing': {
    action: 'wait',
    hint: 'No valid component_verify_ticket has come from WeChat. Check that the authorisation events of the platform reach ingest; WeChat has been asked to push one.',
  },
  'external-token-stale': {
    action: 'wait',
    hint: 'The token service of this app still gives out an access_token that WeChat rejects. It must renew it.',
  },
  'access-point-retired': {
    action: 'wait',
    hint: 'The API host is pinned to an IP address that WeChat has retired. Use the host name.',
  },
  'cloud-call-misconfigured': {
    action: 'wait',
    hint: 'WeChat Cloud Run refuses /cgi-bin/media/get: allow the path in its console (WeChat token) and deploy a new version.',
  },

  // the media itself
  'invalid-media-id': {
    action: 'dead',
    hint: 'WeChat does not know this media_id: never existed, of another account, or a permanent id.',
  },
  'media-expired': { action: 'dead', hint: 'WeChat keeps temporary media 3 days. Ask the sender again.' },
  'media-type-unsupported': { action: 'dead', hint: 'This media_id is of a kind that media/get does not serve.' },
  'media-too-large': { action: 'dead', hint: 'The media is larger than MEDIA_MAX_BYTES. Raise it and replay.' },
  'deadline-exceeded': {
    action: 'dead',
    hint: 'It was still failing for a passing cause when the time ran out. The attempts name the last cause.',
  },
  'job-invalid': {
    action: 'dead',
    hint: 'The queue held a job that is not a MediaJob v1. Correct the program that put it there.',
  },

  // the body
  'body-truncated': { action: 'retry', hint: 'The body ended before Content-Length bytes arrived.' },
  'body-empty': { action: 'retry', hint: 'WeChat answered with a body of 0 bytes.' },
  'body-not-media': { action: 'retry', hint: 'The body is declared as media but is a web page or a text.' },
  'video-url-refused': {
    action: 'retry',
    hint: 'The video_url leads to an address that is not public. Open it with WEIXIN_DOWNLOAD_ALLOW_HOSTS if you trust it.',
  },
  'video-url-failed': { action: 'retry', hint: 'The host behind video_url did not serve the video.' },

  // the store
  'store-unreachable': {
    action: 'retry',
    hint: 'No answer from the S3 store. Check AWS_ENDPOINT_URL_S3 and the network.',
  },
  'store-busy': { action: 'retry', hint: 'The S3 store asks to slow down or has an internal error.' },
  'store-denied': { action: 'retry', hint: 'The S3 store refuses our credentials or rights. `doctor` tells which.' },
  'store-bucket-missing': { action: 'retry', hint: 'ARCHIVE_BUCKET does not exist. Create it.' },
  'store-region-wrong': {
    action: 'retry',
    hint: 'ARCHIVE_BUCKET lies in another region, which the store names. Set AWS_REGION to it; AWS_ENDPOINT_URL_S3, where set, must be of that region too.',
  },
  'store-corrupted': { action: 'retry', hint: 'The bytes that reached the store are not those that were sent.' },
  'store-refused': {
    action: 'retry',
    hint: 'The S3 store refused the write for a reason of its own; see the attempt.',
  },
  'object-conflict': {
    action: 'dead',
    hint: 'Another object with other bytes lies at the key. Look at both; remove the wrong one and replay.',
  },

  // ourselves
  'worker-lost': { action: 'retry', hint: 'The worker that ran this attempt died or lost its lock.' },
  unclassified: { action: 'retry', hint: 'No rule names this fault. Add a row to the table of its adapter.' },
} as const satisfies Record<string, FailureRule>;

export type FailureCode = keyof typeof FAILURES;

/** One failure as it happened. Never holds a secret: adapters blot out what a peer may have echoed. */
export interface Failure {
  readonly code: FailureCode;
  /** A short text for operators: an error name, an address, the first characters of an odd body. */
  readonly detail?: string;
  /** WeChat's own words, where there are any. */
  readonly errcode?: number;
  readonly errmsg?: string;
  readonly rid?: string;
  readonly httpStatus?: number;
}

/** Builds a failure; `undefined` details are left out. */
export function failure(
  code: FailureCode,
  facts: { readonly [K in Exclude<keyof Failure, 'code'>]?: Failure[K] | undefined } = {},
): Failure {
  const known = Object.entries(facts).filter(([, value]) => value !== undefined);
  return { code, ...(Object.fromEntries(known) as Omit<Failure, 'code'>) };
}

/** A value, or the failure that stands in its place. Expected failures are returned, never thrown. */
export type Result<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly failure: Failure };

export function succeed<T>(value: T): Result<T> {
  return { ok: true, value };
}

export function fail(
  code: FailureCode,
  facts?: { readonly [K in Exclude<keyof Failure, 'code'>]?: Failure[K] | undefined },
): Result<never> {
  return { ok: false, failure: failure(code, facts) };
}

/**
 * Carries a failure through a stream, the one place where it can't be returned. Whoever consumes the stream catches it
 * and goes on with the value.
 */
export class FailureError extends Error {
  override readonly name = 'FailureError';
  readonly failure: Failure;

  constructor(reason: Failure) {
    super(reason.code);
    this.failure = reason;
  }
}
