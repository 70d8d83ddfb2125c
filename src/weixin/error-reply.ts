import { type Failure, failure } from '../failure.ts';
import { type Secret, withoutSecret } from '../secret.ts';
import { type ErrorSource, failureOfErrcode } from './error-codes.ts';

/** Long enough for every errmsg seen; what is longer is cut. */
const MAX_TEXT = 300;

/** Longest JSON that is read as WeChat's. Its errors are some 100 to 300 bytes. */
export const MAX_JSON_BYTES = 64 * 1024;

/** What may stand before the brace: white space, which includes the byte order mark, and control characters. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const BEFORE_JSON = /^[\s\u0000-\u001f\u007f]+/;

/** True when the text may go on to be a JSON object. */
export function startsLikeJson(text: string): boolean {
  return /^(\{|$)/.test(text.replace(BEFORE_JSON, ''));
}

/**
 * Parses a JSON object as WeChat sends it: possibly behind a byte order mark and with raw control characters in it or
 * before it. Returns `undefined` for anything else.
 */
export function parseWeixinJson(body: Uint8Array): Readonly<Record<string, unknown>> | undefined {
  const text = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
    .toString('utf8')
    .replace(BEFORE_JSON, '')
    .trim();
  if (!text.startsWith('{')) return undefined;
  for (const candidate of [text, withoutControls(text)]) {
    try {
      const value: unknown = JSON.parse(candidate);
      if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    } catch {
      // The second candidate, or nothing.
    }
  }
  return undefined;
}

/** Returns the `errcode` of a reply, which some APIs send as a string. */
export function errcodeOf(json: Readonly<Record<string, unknown>>): number | undefined {
  const errcode = json['errcode'];
  if (typeof errcode === 'number' && Number.isInteger(errcode)) return errcode;
  return typeof errcode === 'string' && /^-?\d{1,9}$/.test(errcode) ? Number(errcode) : undefined;
}

/**
 * Turns an error reply of WeChat into a failure. The text is kept for operators, without the secret that was sent.
 *
 * @param sent what the request held: tokens, AppSecrets.
 */
export function failureOfReply(json: Readonly<Record<string, unknown>>, source: ErrorSource, sent: Sent): Failure {
  const errcode = errcodeOf(json);
  const errmsg = typeof json['errmsg'] === 'string' ? readable(json['errmsg'], sent) : undefined;
  const code = errcode === undefined ? 'weixin-unexpected-reply' : failureOfErrcode(errcode, source);
  return failure(code, {
    errcode,
    errmsg,
    rid: /\brid: ?([0-9a-f]{4,16}(?:-[0-9a-f]{4,16}){1,4})/.exec(errmsg ?? '')?.[1],
    detail: code === 'ip-not-allowed' ? /invalid ip ([0-9a-fA-F.:]{2,45})/.exec(errmsg ?? '')?.[1] : undefined,
  });
}

/** The secrets that a request held. */
export type Sent = Secret | readonly Secret[];

/** Makes a foreign text fit for logs: no control characters, bounded, without the secrets that were sent. */
export function readable(text: string, sent: Sent): string {
  const secrets = Array.isArray(sent) ? (sent as readonly Secret[]) : [sent as Secret];
  return secrets.reduce(withoutSecret, withoutControls(text)).slice(0, MAX_TEXT);
}

function withoutControls(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\u0000-\u001f\u007f]+/g, ' ');
}
