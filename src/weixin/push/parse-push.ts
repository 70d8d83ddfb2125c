import type { ParsedPush } from './push-fields.ts';
import { parsePushJson } from './push-json.ts';
import { parsePushXml } from './push-xml.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** Reads a push by its first character, since its Content-Type may say anything. */
export function parsePushFields(body: Uint8Array): ParsedPush {
  let text: string;
  try {
    text = utf8.decode(body);
  } catch {
    return { ok: false, reason: 'not UTF-8' };
  }
  switch (/\S/.exec(text)?.[0]) {
    case '{':
      return parsePushJson(text);
    case '<':
      return parsePushXml(text);
    case undefined:
      return { ok: false, reason: 'empty' };
    default:
      return { ok: false, reason: 'neither XML nor JSON' };
  }
}
