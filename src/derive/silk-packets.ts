const MAGIC = Buffer.from('#!SILK_V3', 'latin1');
/** What Tencent puts before the magic. */
const MARK = 0x02;
/** What others put behind the last packet, where Tencent puts nothing. */
const END = 0xffff;

/** Packets of a voice: 20 ms each, as all recorders make them, so ten minutes. WeChat records one. */
const MAX_PACKETS = 30_000;

/**
 * The most that SILK itself makes of 20 ms (`MAX_BYTES_PER_FRAME` of its SDK); a voice takes 100. `silk-wasm` 3.7.1 writes
 * packets from about four times this size on over its own memory, and goes on with what is then there.
 */
const MAX_PACKET_BYTES = 1_024;

export type SilkPackets =
  | { readonly ok: true; readonly bytes: Buffer }
  | { readonly ok: false; readonly code: 'tool-failed' | 'too-large'; readonly why: string };

/**
 * Returns the whole packets of a SILK v3 file in the form that `silk-wasm` decodes, which is Tencent's: it refuses files
 * without the mark, and makes 40 ms of silence of a header with nothing behind it. A last packet that is cut is left out.
 *
 * Each packet is its length, 16 bits with the lowest byte first, and as many bytes.
 *
 * @see https://github.com/kn007/silk-v3-decoder
 */
export function silkPackets(file: Buffer): SilkPackets {
  const start = file[0] === MARK ? 1 : 0;
  const first = start + MAGIC.byteLength;
  if (!file.subarray(start, first).equals(MAGIC)) return { ok: false, code: 'tool-failed', why: 'no SILK v3' };
  let end = first;
  let packets = 0;
  while (end + 2 <= file.byteLength) {
    const length = file.readUInt16LE(end);
    if (length === END) break;
    if (length > MAX_PACKET_BYTES)
      return { ok: false, code: 'tool-failed', why: `a packet of SILK of ${length} bytes` };
    if (end + 2 + length > file.byteLength) break;
    end += 2 + length;
    packets += 1;
  }
  if (packets === 0) return { ok: false, code: 'tool-failed', why: 'no whole packet of SILK' };
  if (packets > MAX_PACKETS) return { ok: false, code: 'too-large', why: `more than ${MAX_PACKETS} packets of SILK` };
  return { ok: true, bytes: Buffer.concat([Buffer.from([MARK]), file.subarray(start, end)]) };
}
