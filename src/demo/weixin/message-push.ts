import { randomBytes, randomInt } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Secret } from '../../secret.ts';
import { type Clock, SECOND } from '../../time.ts';
import { encryptMessage } from '../../weixin/push/message-crypto.ts';
import { signatureOf } from '../../weixin/push/signature.ts';

/** A text (CDATA in XML), or a number (bare in both). */
export type SimulatedValue = string | number | bigint | SimulatedFields;

export interface SimulatedFields {
  readonly [name: string]: SimulatedValue;
}

export type PushMode = 'plaintext' | 'compatible' | 'safe';
export type PushFormat = 'xml' | 'json';

/** Who pushes to whom, as the console has it. */
export interface PushSender {
  readonly token: string;
  /** 43 characters; not needed in plaintext. */
  readonly encodingAesKey?: string;
  /** What stands at the end of what is encrypted: the app's, or its platform's. */
  readonly appId: string;
  readonly mode: PushMode;
  /** Mini programs choose; platforms are pushed XML. */
  readonly format: PushFormat;
}

/** A push that is ready to be sent. */
export interface SimulatedPush {
  /** To be appended to the address. */
  readonly query: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** Fields that every message has. A MsgId has 64 bits, and its upper half is the time. */
export function simulatedMessage(type: string, fields: SimulatedFields, now: number): SimulatedFields {
  const seconds = Math.floor(now / SECOND);
  return {
    ToUserName: 'gh_97417a04a28d',
    FromUserName: 'o9AgO5Kd5ggOC-bXrbNODIiE3bGY',
    CreateTime: seconds,
    MsgType: type,
    ...fields,
    ...(type === 'event' ? {} : { MsgId: (BigInt(seconds) << 32n) | BigInt(randomInt(2 ** 32)) }),
  };
}

/** The check of an address, as the console sends it: the query of a GET. */
export function simulatedVerification(sender: PushSender, now: number): Readonly<Record<string, string>> {
  const { signature, ...stamp } = stampOf(sender, now);
  return { signature, echostr: String(randomBytes(8).readBigUInt64BE()), ...stamp };
}

/** Writes, encrypts and signs a push. */
export function simulatedPush(fields: SimulatedFields, sender: PushSender, now: number): SimulatedPush {
  const { mode, format, appId, token, encodingAesKey = '' } = sender;
  const write = format === 'xml' ? xmlOf : jsonOf;
  const headers = { 'content-type': format === 'xml' ? 'text/xml' : 'application/json' };
  const stamp = { ...stampOf(sender, now), openid: String(fields['FromUserName'] ?? '') };
  if (mode === 'plaintext') return { query: stamp, headers, body: write(fields) };

  const encrypt = encryptMessage(write(fields), new Secret(encodingAesKey), appId, randomBytes(16));
  // A ticket is pushed to no ToUserName but to the platform itself.
  const addressee: SimulatedFields = 'AppId' in fields ? { AppId: appId } : { ToUserName: fields['ToUserName'] ?? '' };
  const msgSignature = signatureOf([token, stamp.timestamp, stamp.nonce, encrypt]);
  return {
    query: { ...stamp, encrypt_type: 'aes', msg_signature: msgSignature },
    headers,
    body: write({ ...(mode === 'compatible' ? fields : addressee), Encrypt: encrypt }),
  };
}

function stampOf({ token }: PushSender, now: number): { signature: string; timestamp: string; nonce: string } {
  const timestamp = String(Math.floor(now / SECOND));
  const nonce = String(randomInt(100_000_000, 2_000_000_000));
  return { signature: signatureOf([token, timestamp, nonce]), timestamp, nonce };
}

function xmlOf(fields: SimulatedFields): string {
  const inner = (value: SimulatedValue): string => {
    if (typeof value === 'string') return `<![CDATA[${value.replaceAll(']]>', ']]]]><![CDATA[>')}]]>`;
    if (typeof value !== 'object') return String(value);
    return Object.entries(value)
      .map(([name, child]) => `<${name}>${inner(child)}</${name}>`)
      .join('');
  };
  return `<xml>${inner(fields)}</xml>`;
}

/** `JSON.stringify` knows no number of 64 bits. */
function jsonOf(value: SimulatedValue): string {
  if (typeof value !== 'object') return typeof value === 'string' ? JSON.stringify(value) : String(value);
  return `{${Object.entries(value)
    .map(([name, child]) => `${JSON.stringify(name)}:${jsonOf(child)}`)
    .join(',')}}`;
}

export interface PushPatience {
  /** How long WeChat waits for an answer. */
  readonly answerMs: number;
  /** Between one push and the next of the same message. */
  readonly pauseMs: number;
  /** Pushes of a message, all in all. */
  readonly tries: number;
}

/** As observed: the connection is cut after 5 s, and the message pushed three times in total. */
export const WEIXIN_PATIENCE: PushPatience = { answerMs: 5 * SECOND, pauseMs: 5 * SECOND, tries: 3 };

/** What a push came to. A `status` of 0 is no answer at all, or a late one. */
export interface PushOutcome {
  readonly handled: boolean;
  readonly answers: readonly { readonly status: number; readonly body: string }[];
}

/**
 * Pushes a message, and pushes it again while the answer is late or none that WeChat understands. Each push is made anew:
 * it has its own time, nonce and signature.
 *
 * @throws the signal's reason when it aborts.
 */
export async function pushMessage(
  url: string,
  fields: SimulatedFields,
  sender: PushSender,
  { answerMs, pauseMs, tries }: PushPatience,
  now: Clock,
  signal: AbortSignal,
): Promise<PushOutcome> {
  const answers: { status: number; body: string }[] = [];
  while (answers.length < tries) {
    if (answers.length > 0) await sleep(pauseMs, undefined, { signal });
    const answer = await sendPush(url, simulatedPush(fields, sender, now()), answerMs, signal);
    answers.push(answer);
    if (answer.status === 200 && /^(success|)$|^\s*[<{]/.test(answer.body)) return { handled: true, answers };
  }
  return { handled: false, answers };
}

/** Sends a push once. */
export async function sendPush(
  url: string,
  { query, headers, body }: SimulatedPush,
  answerMs: number,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: string }> {
  try {
    const limit = AbortSignal.any([signal, AbortSignal.timeout(answerMs)]);
    const response = await fetch(`${url}?${new URLSearchParams(query)}`, {
      method: 'POST',
      headers,
      body,
      signal: limit,
    });
    return { status: response.status, body: await response.text() };
  } catch {
    signal.throwIfAborted();
    return { status: 0, body: '' };
  }
}
