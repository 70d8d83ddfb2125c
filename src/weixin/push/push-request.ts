import { type Clock, MINUTE, SECOND } from '../../time.ts';
import type { AccountPush, PushSettings } from '../credentials/account.ts';
import { decryptMessage } from './message-crypto.ts';
import { parsePushFields } from './parse-push.ts';
import { type ParsedPush, type PushFields, textIn } from './push-fields.ts';
import { isSignatureOf } from './signature.ts';

/** A request as it came, whoever sent it. */
export interface PushRequest {
  readonly method: string;
  /** Parameters by name; one that came twice is a list. */
  readonly query: Readonly<Record<string, unknown>>;
  /** By lower-case name. */
  readonly headers: Readonly<Record<string, unknown>>;
  readonly body: Uint8Array;
}

/** What is known of the app whose pushes come here. */
export type PushExpectation =
  | Extract<AccountPush, { readonly type: 'cloud' }>
  /** `trailer` is the appId within what is encrypted: the app's own, or its platform's. */
  | (Extract<AccountPush, { readonly type: 'signed' }> & { readonly trailer: string });

/**
 * What a request turned out to be.
 *
 * - `verification`: the console checks the address. `echostr` is to be answered, as it is.
 * - `container-check`: WeChat Cloud Run does. `success` is to be answered.
 * - `message`: a message or an event, by WeChat.
 * - `unreadable`: one by WeChat, of which we can make nothing. `reason` is for the log.
 * - `refused`: anything else. `reason` is for the log, and holds nothing that was sent.
 */
export type PushVerdict =
  | { readonly type: 'verification'; readonly echostr: string }
  | { readonly type: 'container-check' }
  | { readonly type: 'message'; readonly fields: PushFields }
  | { readonly type: 'unreadable'; readonly reason: string }
  | { readonly type: 'refused'; readonly status: 400 | 403; readonly reason: string };

/** A push that is older than this, or so far ahead, may be one that somebody has seen and sends again. */
export const PUSH_WINDOW_MS = 10 * MINUTE;

/** WeChat's are some ten and twenty digits. */
const MAX_PARAMETER_LENGTH = 256;

/**
 * Tells whether a request is a push by WeChat, and reads it.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/developers/dev/push/encryption.md
 */
export function judgePush(request: PushRequest, expected: PushExpectation, now: Clock): PushVerdict {
  if (expected.type === 'cloud') return judgeCloudPush(request);
  const refused = refusalOfHead(request, expected, now);
  if (refused !== undefined) return refused;
  const { token } = expected.settings;
  const { timestamp, nonce, echostr } = request.query;
  if (request.method === 'GET')
    return isParameter(echostr) ? { type: 'verification', echostr } : malformed('no echostr');
  if (isEncrypted(request)) return openPush(request, expected, [token.reveal(), String(timestamp), String(nonce)]);
  const parsed = parsePushFields(request.body);
  // The clear fields beside it are not signed: anybody in between may have written them.
  if (parsed.ok && 'Encrypt' in parsed.fields) return forbidden('encrypted, without a signature of what is encrypted');
  return messageOf(parsed);
}

/**
 * Tells whether a request is refused whatever its body is: for its time, for a wrong signature, or because it is not
 * encrypted. The signature of what is encrypted can't be told without it.
 */
export function refusalOfHead(
  request: Omit<PushRequest, 'body'>,
  expected: PushExpectation,
  now: Clock,
): PushVerdict | undefined {
  if (expected.type === 'cloud') return undefined;
  const stamp = stampOf(request, now());
  if (typeof stamp === 'string') return forbidden(stamp);
  const { token, mustBeEncrypted, encodingAesKey }: PushSettings = expected.settings;
  if (request.method !== 'GET' && isEncrypted(request))
    return encodingAesKey === undefined ? forbidden(NO_KEY) : undefined;
  if (request.method !== 'GET' && mustBeEncrypted)
    return forbidden('not encrypted, although the mode of this app is compatible or safe');
  const signed = [token.reveal(), stamp.timestamp, stamp.nonce];
  return isSignatureOf(request.query['signature'], signed) ? undefined : forbidden('wrong signature');
}

function isEncrypted({ query }: Pick<PushRequest, 'query'>): boolean {
  return query['encrypt_type'] === 'aes' || query['msg_signature'] !== undefined;
}

const NO_KEY = 'encrypted, and no encodingAesKey is configured for this app: add it to its push settings';

/** In compatible and safe mode what is encrypted counts, and only that. */
function openPush(
  { query, body }: PushRequest,
  { settings, trailer }: Extract<PushExpectation, { readonly type: 'signed' }>,
  signed: readonly string[],
): PushVerdict {
  const { encodingAesKey }: PushSettings = settings;
  if (encodingAesKey === undefined) return forbidden(NO_KEY);
  const envelope = parsePushFields(body);
  if (!envelope.ok) return malformed(envelope.reason);
  const encrypt = textIn(envelope.fields, 'Encrypt')?.trim();
  if (encrypt === undefined) return malformed('no Encrypt in it');
  if (!isSignatureOf(query['msg_signature'], [...signed, encrypt])) return forbidden('wrong msg_signature');
  const decrypted = decryptMessage(encrypt, encodingAesKey, trailer);
  return decrypted.ok ? messageOf(parsePushFields(decrypted.message)) : forbidden(`encrypted, ${decrypted.fault}`);
}

/**
 * Pushes within WeChat Cloud Run are not signed: its gateway sets the header, and takes it from requests that come from
 * elsewhere.
 *
 * @see https://developers.weixin.qq.com/miniprogram/dev/wxcloudrun/src/guide/weixin/open.html
 */
function judgeCloudPush({ method, headers, body }: PushRequest): PushVerdict {
  if (method === 'GET') return malformed('a GET, which Cloud Run does not send');
  const parsed = parsePushFields(body);
  if (parsed.ok && parsed.fields['action'] === 'CheckContainerPath') return { type: 'container-check' };
  if (!headers['x-wx-sources']) return forbidden('no x-wx-sources header: not by WeChat Cloud Run');
  return messageOf(parsed);
}

function stampOf(
  { query }: Pick<PushRequest, 'query'>,
  now: number,
): { readonly timestamp: string; readonly nonce: string } | string {
  const { timestamp, nonce } = query;
  if (!isParameter(timestamp) || !/^\d{10}$/.test(timestamp)) return 'no timestamp';
  if (!isParameter(nonce)) return 'no nonce';
  const aheadMs = Number(timestamp) * SECOND - now;
  if (Math.abs(aheadMs) > PUSH_WINDOW_MS)
    return `a timestamp ${Math.round(Math.abs(aheadMs) / SECOND)} s ${aheadMs > 0 ? 'ahead' : 'old'}`;
  return { timestamp, nonce };
}

function isParameter(value: unknown): value is string {
  return typeof value === 'string' && value !== '' && value.length <= MAX_PARAMETER_LENGTH;
}

function messageOf(parsed: ParsedPush): PushVerdict {
  return parsed.ok ? { type: 'message', fields: parsed.fields } : { type: 'unreadable', reason: parsed.reason };
}

function forbidden(reason: string): PushVerdict {
  return { type: 'refused', status: 403, reason };
}

function malformed(reason: string): PushVerdict {
  return { type: 'refused', status: 400, reason };
}
