import type { ParsedPush } from './push-fields.ts';
import { parsePushJson } from './push-json.ts';
import { parsePushXml } from './push-xml.ts';

const utf8 = new TextDecoder();

/** Users paste anything: WeChat writes it raw, where JSON and XML allow none of it. Whoever reads it strictly loses the message. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
const CONTROLS = /[\u0000-\u001f\u007f]/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above
const NOT_XML = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g;
/** What XML does not take as a reference either. */
const REFERENCES = /&#(?:0*(?:[0-8]|1[124-9]|2\d|3[01])|x0*(?:[0-8bcef]|1[\da-f]));/gi;

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
      return parsePushXml(text.replace(NOT_XML, '').replace(REFERENCES, ''));
    case undefined:
      return { ok: false, reason: 'empty' };
    default:
      return { ok: false, reason: 'neither XML nor JSON' };
  }
}
