import { createHash } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { MediaKind } from '../../media/kind.ts';

/** The formats that users send, by what their first bytes are. */
export const SAMPLE_FORMATS = {
  jpeg: { kind: 'image', contentType: 'image/jpeg', extension: 'jpg' },
  png: { kind: 'image', contentType: 'image/png', extension: 'png' },
  gif: { kind: 'image', contentType: 'image/gif', extension: 'gif' },
  amr: { kind: 'voice', contentType: 'audio/amr', extension: 'amr' },
  // Named and declared as amr, as WeChat does now and then.
  silk: { kind: 'voice', contentType: 'audio/amr', extension: 'amr' },
  speex: { kind: 'voice', contentType: 'voice/speex', extension: 'speex' },
  mp4: { kind: 'video', contentType: 'video/mp4', extension: 'mp4' },
} as const satisfies Record<string, { kind: MediaKind; contentType: string; extension: string }>;

export type SampleFormat = keyof typeof SAMPLE_FORMATS;

/** Bytes that are made when they are asked for, so that a thousand large videos need no memory. */
export interface SampleBytes {
  readonly sizeBytes: number;
  /** 64 lower-case hexadecimal digits. */
  readonly sha256: string;
  /** The bytes from `start` on, in chunks of 64 KiB at most. */
  chunks(start?: number): Generator<Buffer>;
}

const BLOCK_BYTES = 64 * 1024;

/** Makes a body of exactly `sizeBytes` with honest first and last bytes. The same seed gives the same bytes. */
export function sampleBytes(format: SampleFormat, sizeBytes: number, seed: string): SampleBytes {
  const { head, tail } = framesOf(format, sizeBytes);
  return fillBetween(head, tail, sizeBytes, seed);
}

/** Makes a body of just these bytes. */
export function exactBytes(bytes: Buffer): SampleBytes {
  return fillBetween(bytes, Buffer.alloc(0), bytes.byteLength, '');
}

function fillBetween(head: Buffer, tail: Buffer, sizeBytes: number, seed: string): SampleBytes {
  const fillBytes = Math.max(0, sizeBytes - head.byteLength - tail.byteLength);

  /** No two blocks are equal, so that parts in the wrong order, or twice, do not go unnoticed. */
  function block(index: number): Buffer {
    const bytes = Buffer.from(noise());
    withoutMarkers(createHash('sha512').update(`${seed} ${index}`).digest()).copy(bytes);
    return bytes;
  }

  function* whole(): Generator<Buffer> {
    if (head.byteLength > 0) yield head;
    for (let start = 0; start < fillBytes; start += BLOCK_BYTES)
      yield block(start / BLOCK_BYTES).subarray(0, fillBytes - start);
    if (tail.byteLength > 0) yield tail;
  }

  function* chunks(start = 0): Generator<Buffer> {
    let skip = start;
    for (const chunk of whole()) {
      if (skip < chunk.byteLength) yield chunk.subarray(skip);
      skip = Math.max(0, skip - chunk.byteLength);
    }
  }

  const hash = createHash('sha256');
  let total = 0;
  for (const chunk of whole()) {
    hash.update(chunk);
    total += chunk.byteLength;
  }
  return { sizeBytes: total, sha256: hash.digest('hex'), chunks };
}

let sharedNoise: Buffer | undefined;

/** Bytes that look random, the same for all: what tells two media apart is the beginning of their blocks. */
function noise(): Buffer {
  sharedNoise ??= withoutMarkers(
    Buffer.concat(
      Array.from({ length: BLOCK_BYTES / 64 }, (_, index) => createHash('sha512').update(String(index)).digest()),
    ),
  );
  return sharedNoise;
}

/** 0xFF starts a JPEG marker: the filler is kept free of it. */
function withoutMarkers(bytes: Buffer): Buffer {
  for (const [index, byte] of bytes.entries()) if (byte === 0xff) bytes[index] = 0xfe;
  return bytes;
}

function framesOf(format: SampleFormat, sizeBytes: number): { head: Buffer; tail: Buffer } {
  const none = Buffer.alloc(0);
  switch (format) {
    case 'jpeg':
      // SOI, APP0 JFIF, then what decoders skip, then EOI.
      return { head: Buffer.from('ffd8ffe000104a46494600010100000100010000', 'hex'), tail: Buffer.from('ffd9', 'hex') };
    case 'png': {
      // Signature, IHDR, one IDAT that holds all that is filled in, IEND.
      const start = Buffer.from('89504e470d0a1a0a0000000d4948445200000001000000010806000000', 'hex');
      const ihdrCrc = Buffer.alloc(4);
      ihdrCrc.writeUInt32BE(crc32(start.subarray(12)));
      const idat = Buffer.from('00000000IDAT', 'latin1').subarray(4);
      const tail = Buffer.from('000000000000000049454e44ae426082', 'hex');
      idat.writeUInt32BE(Math.max(0, sizeBytes - start.byteLength - 4 - idat.byteLength - tail.byteLength), 0);
      return { head: Buffer.concat([start, ihdrCrc, idat]), tail };
    }
    case 'gif':
      return { head: Buffer.from('GIF89a\x01\x00\x01\x00\x00\x00\x00', 'latin1'), tail: Buffer.from(';') };
    case 'amr':
      return { head: Buffer.from('#!AMR\n'), tail: none };
    case 'silk':
      return { head: Buffer.from('\x02#!SILK_V3', 'latin1'), tail: none };
    case 'speex':
      // WeChat's HD voice is bare speex frames: no magic at all.
      return { head: Buffer.from('0600', 'hex'), tail: none };
    case 'mp4': {
      const ftyp = Buffer.from('00000018667479706d703432000000006d70343269736f6d', 'hex');
      const mdat = Buffer.alloc(8);
      mdat.writeUInt32BE(Math.max(8, sizeBytes - ftyp.byteLength), 0);
      mdat.write('mdat', 4, 'latin1');
      return { head: Buffer.concat([ftyp, mdat]), tail: none };
    }
    default:
      return format satisfies never;
  }
}
