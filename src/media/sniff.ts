import { fileTypeFromBuffer } from 'file-type';

/** How many first bytes are enough to tell a type. @see https://github.com/sindresorhus/file-type */
export const SNIFF_BYTES = 4_100;

/** A type found in the bytes themselves. */
export interface SniffedType {
  readonly mime: string;
  /** Lower case, without the dot. */
  readonly extension: string;
}

/**
 * Voice formats of WeChat by their first bytes, which file-type does not know or not apart. What WeChat calls `.amr` is
 * often SILK v3, sometimes with a 0x02 before its magic.
 *
 * @see https://datatracker.ietf.org/doc/html/rfc4867#section-5
 */
const VOICE_MAGIC = [
  { magic: '#!SILK_V3', mime: 'audio/silk', extension: 'silk' },
  { magic: '\x02#!SILK_V3', mime: 'audio/silk', extension: 'silk' },
  { magic: '#!AMR-WB\n', mime: 'audio/amr-wb', extension: 'awb' },
  { magic: '#!AMR\n', mime: 'audio/amr', extension: 'amr' },
] as const;

/**
 * Formats that file-type looks further into than the first bytes, to tell variants apart, and then gives up: a PNG may
 * begin with kilobytes of colour profile.
 */
const FALLBACK_MAGIC = [{ magic: '\x89PNG\r\n\x1a\n', mime: 'image/png', extension: 'png' }] as const;

/** Tells the type from the first bytes; `undefined` when no known magic is there (raw speex has none). */
export async function sniffType(head: Uint8Array): Promise<SniffedType | undefined> {
  const start = Buffer.from(head.buffer, head.byteOffset, Math.min(head.byteLength, 16)).toString('latin1');
  for (const { magic, mime, extension } of VOICE_MAGIC) {
    if (start.startsWith(magic)) return { mime, extension };
  }
  const found = await fileTypeFromBuffer(head);
  if (found !== undefined) return { mime: found.mime, extension: found.ext };
  const known = FALLBACK_MAGIC.find(({ magic }) => start.startsWith(magic));
  return known === undefined ? undefined : { mime: known.mime, extension: known.extension };
}

/** True when the bytes are printable text, which no media of WeChat's is: an error in words, whatever it is declared as. */
export function looksLikeText(head: Uint8Array): boolean {
  const encodings = head.byteLength < MIN_ODD_TEXT_BYTES ? ['utf-8'] : ODD_ENCODINGS;
  return (
    encodings.some((encoding) => isPrintable(head, encoding)) ||
    isUtf32(head, 'readUInt32LE') ||
    isUtf32(head, 'readUInt32BE')
  );
}

const ODD_ENCODINGS = ['utf-8', 'utf-16le', 'utf-16be', 'gb18030', 'big5', 'euc-jp'];

/** Node's decoders know no UTF-32. */
function isUtf32(head: Uint8Array, characterAt: 'readUInt32LE' | 'readUInt32BE'): boolean {
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.byteLength);
  if (bytes.byteLength < MIN_ODD_TEXT_BYTES) return false;
  for (let at = 0; at + 4 <= bytes.byteLength; at += 4) {
    const character = bytes[characterAt](at);
    const isMark = at === 0 && character === 0xfeff;
    if (!isMark && (character > 0xff_ff || !PRINTABLE.test(String.fromCharCode(character)))) return false;
  }
  return true;
}

/** A few bytes of anything may pass for two or three Chinese characters. */
const MIN_ODD_TEXT_BYTES = 16;

/** Characters of Chinese, Japanese, Latin, Greek and Cyrillic texts, and nothing that controls a terminal. */
const PRINTABLE =
  /^[\t\n\r\u0020-\u007e\u00a0-\u00ff\u0370-\u04ff\u2010-\u2027\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]+$/;

function isPrintable(head: Uint8Array, encoding: string): boolean {
  try {
    // A character may be cut at the end of the head.
    const text = new TextDecoder(encoding, { fatal: true }).decode(head, { stream: true });
    return encoding === 'utf-8' ? text !== '' && !CONTROLS.test(text) : PRINTABLE.test(text);
  } catch {
    return false;
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what text does not have
const CONTROLS = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/;

/** True when the bytes begin like a web page or an XML document, which WeChat never has as media. */
export function looksLikeMarkup(head: Uint8Array): boolean {
  return /^(\uFEFF)?\s*<(!doctype|html|head|body|\?xml|!--)/i.test(Buffer.from(head.subarray(0, 256)).toString('utf8'));
}
