import type { ParsedPush } from './push-fields.ts';
import { parsePushJson } from './push-json.ts';
import { parsePushXml } from './push-xml.ts';

const utf8 = new TextDecoder();

/** Users paste anything: WeChat writes it raw, where JSON and XML allow none of it. Whoever reads it strictly loses the message. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROLS = /[\u0000-\u001f\u007f]/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above
const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;
/** A surrogate pair in two references, as some write an emoji; and any reference to one character. */
const REFERENCE = /&#x(d[89ab][\da-f]{2});&#x(d[c-f][\da-f]{2});|&#(?:x([\da-f]{1,8})|(\d{1,10}));/gi;

/**
 * Reads a push by its first character, since its Content-Type may say anything. Bytes that are no UTF-8 become U+FFFD, and
 * control characters go: what they stand in is text that nobody here needs, and a media_id has none.
 */
export function parsePushFields(body: Uint8Array): ParsedPush {
  const text = utf8.decode(body);
  switch (/\S/.exec(text)?.[0]) {
    case '{':
      return parsePushJson(text.replace(CONTROLS, ' '));
    case '<':
      return parsePushXml(text.replace(NOT_XML, '').replace(REFERENCE, readableReference));
    case undefined:
      return { ok: false, reason: 'empty' };
    default:
      return { ok: false, reason: 'neither XML nor JSON' };
  }
}

/** A reference that XML takes as it is; without the character that it must not name. */
function readableReference(reference: string, high?: string, low?: string, hex?: string, decimal?: string): string {
  if (high !== undefined && low !== undefined)
    return String.fromCharCode(Number.parseInt(high, 16), Number.parseInt(low, 16));
  const code = hex === undefined ? Number(decimal) : Number.parseInt(hex, 16);
  const isSurrogate = code >= 0xd800 && code <= 0xdfff;
  const isXml = code <= 0x10ffff && !isSurrogate && !String.fromCodePoint(code).match(NOT_XML);
  return isXml ? reference : '';
}
