import { iso, SECOND } from '../time.ts';
import type { MediaKind } from './kind.ts';
import { appIdSchema, type MediaJob } from './media-job.ts';

/**
 * A message as WeChat pushed it and any parser of XML or JSON has read it: by the names of WeChat, as `MsgType` and
 * `MediaId`. A value may be a text, a number, a list of one (as of xml2js) or an object around a text (as for CDATA); the
 * whole may stand within `{ xml: … }`.
 */
export type WeixinMessage = Readonly<Record<string, unknown>>;

export interface MessageMediaOptions {
  /** The app that was sent the message. Default: `ToUserName`, where it is an appId, as for cloud functions. */
  readonly appId?: string;
  /** When the message came, in ms since 1970, where it does not say so itself. Default: the current time. */
  readonly now?: number;
}

/** What `MediaId` is in a message of this type. Of another type the kind is left open. */
const KIND_OF_TYPE: Readonly<Record<string, MediaKind>> = {
  image: 'image',
  voice: 'voice',
  video: 'video',
  shortvideo: 'video',
};

/**
 * Returns a job for each media of a message: its image, voice (as well in 16 kHz, where WeChat has it so) or video and
 * the cover of that. None for an event, nor for a message without media. A media in a message of a type that is not known
 * yet is a job too.
 *
 * The three days of a media count from `CreateTime`. A MsgId that a parser has made a number of has lost digits where it
 * is beyond 2^53, and is left out. What can't be a media_id is a job all the same: handing it in tells what is wrong.
 *
 * @throws TypeError when it is no message, or nothing says which app it belongs to.
 * @see https://developers.weixin.qq.com/doc/service/guide/capability/basic-message/receive-message
 */
export function mediaJobsFromMessage(message: WeixinMessage, options: MessageMediaOptions = {}): MediaJob[] {
  const fields = fieldsOf(message);
  const textOf = (name: string): string | undefined => scalarsIn(fields[name]).map(String)[0];
  const appId = options.appId ?? textOf('ToUserName') ?? '';
  if (options.appId === undefined && !appIdSchema.safeParse(appId).success)
    throw new TypeError('the message does not say its app: pass { appId }, as ToUserName is no appId');

  const type = textOf('MsgType');
  if (type === 'event') return [];
  const kind = type !== undefined && Object.hasOwn(KIND_OF_TYPE, type) ? KIND_OF_TYPE[type] : undefined;
  const source = sourceOf(idIn(fields['MsgId']), idIn(fields['FromUserName']));
  const common = { v: 1, appId, receivedAt: receivedAtOf(textOf('CreateTime'), options.now ?? Date.now()) } as const;
  const jobs = (field: string, kindOfField: MediaKind | undefined): MediaJob[] =>
    scalarsIn(fields[field]).map((mediaId) => ({
      ...common,
      mediaId: String(mediaId),
      ...(kindOfField === undefined ? {} : { kind: kindOfField }),
      ...(source === undefined ? {} : { source }),
    }));
  return [...jobs('MediaId', kind), ...jobs('MediaId16K', 'voice'), ...jobs('ThumbMediaId', 'thumb')];
}

function fieldsOf(message: unknown): WeixinMessage {
  if (typeof message !== 'object' || message === null || Array.isArray(message))
    throw new TypeError('a message is the object that a parser has made of a push');
  const { xml } = message as WeixinMessage;
  return typeof xml === 'object' && xml !== null && !Array.isArray(xml)
    ? (xml as WeixinMessage)
    : (message as WeixinMessage);
}

/**
 * Names under which parsers keep the text of an element: `__cdata` and `#text` of fast-xml-parser, `_` of xml2js, `_cdata`
 * and `_text` of xml-js, `#cdata` and `$t` of others. CDATA first: what stands beside it is white space.
 */
const TEXT_NAMES = ['__cdata', '#cdata', '_cdata', '#cdata-section', '_', '#text', '_text', '$t'];

type Scalar = string | number | bigint;

/** WeChat's fields come once. A list of thousands is none of WeChat's. */
const MAX_VALUES = 10;

/** What stands in a field, but for empty texts: one, unless it came more than once. */
function scalarsIn(value: unknown): Scalar[] {
  const values: readonly unknown[] = Array.isArray(value) ? value.slice(0, MAX_VALUES) : [value];
  return values.map((one) => scalarIn(one) ?? innerScalar(one)).filter((one) => one !== undefined);
}

function scalarIn(value: unknown): Scalar | undefined {
  if (typeof value === 'number' || typeof value === 'bigint') return value;
  return typeof value === 'string' && value.trim() !== '' ? value.trim() : undefined;
}

function innerScalar(value: unknown): Scalar | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const inner = TEXT_NAMES.filter((name) => Object.hasOwn(value, name)).map((name) => (value as WeixinMessage)[name]);
  return inner.map(scalarIn).find((one) => one !== undefined);
}

/** Of what a MediaJob holds in `source`. */
const MAX_ID_LENGTH = 128;

/** An id that is exact, or none. */
function idIn(value: unknown): string | undefined {
  const [id] = scalarsIn(value);
  if (id === undefined || (typeof id === 'number' && !Number.isSafeInteger(id))) return undefined;
  return String(id).length <= MAX_ID_LENGTH ? String(id) : undefined;
}

function sourceOf(messageId: string | undefined, openId: string | undefined): MediaJob['source'] {
  if (messageId === undefined && openId === undefined) return undefined;
  return {
    ...(messageId === undefined ? {} : { messageId }),
    ...(openId === undefined ? {} : { openId }),
  };
}

/** Ten digits are seconds, from 2001 on; thirteen are milliseconds. All else says nothing. */
function receivedAtOf(createTime: string | undefined, now: number): string {
  if (createTime === undefined || !/^[1-9]\d{9}(\d{3})?$/.test(createTime)) return iso(now);
  return iso(createTime.length === 10 ? Number(createTime) * SECOND : Number(createTime));
}
