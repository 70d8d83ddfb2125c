import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { silkPackets } from '../../src/derive/silk-packets.ts';

const MAGIC = Buffer.from('#!SILK_V3');
const TENCENTS = Buffer.from('\x02#!SILK_V3');

function packet(...bytes: number[]): Buffer {
  return Buffer.from([bytes.length, 0, ...bytes]);
}

function packetOf(sizeBytes: number): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16LE(sizeBytes);
  return Buffer.concat([length, Buffer.alloc(sizeBytes, 0x55)]);
}

const WHOLE = Buffer.concat([TENCENTS, packet(1, 2, 3), packet(4)]);

describe('silkPackets', () => {
  test.each([
    ["Tencent's form", WHOLE],
    ['no mark', WHOLE.subarray(1)],
    ['an end mark', Buffer.concat([WHOLE.subarray(1), Buffer.from([0xff, 0xff])])],
    ['a mark and an end mark', Buffer.concat([WHOLE, Buffer.from([0xff, 0xff])])],
    ['a cut packet at the end', Buffer.concat([WHOLE, Buffer.from([9, 0, 1, 2])])],
    ['a cut length at the end', Buffer.concat([WHOLE, Buffer.from([9])])],
  ])("gives the whole packets of a file with %s in Tencent's form", (_, file) => {
    expect(silkPackets(file)).toEqual({ ok: true, bytes: WHOLE });
  });

  test.each([
    ['nothing', Buffer.alloc(0)],
    ['the mark alone', Buffer.from([2])],
    ['AMR', Buffer.from('#!AMR\n')],
    ['a header alone', TENCENTS],
    ['a header alone, and an end mark', Buffer.concat([MAGIC, Buffer.from([0xff, 0xff])])],
    ['one packet, cut', Buffer.concat([TENCENTS, Buffer.from([5, 0, 1])])],
    ['a packet that no voice has', Buffer.concat([WHOLE, packetOf(1_025)])],
    ['the length of one, at the end', Buffer.concat([WHOLE, Buffer.from([0x01, 0x04])])],
  ])('refuses %s', (_, file) => {
    expect(silkPackets(file)).toMatchObject({ ok: false, code: 'tool-failed' });
  });

  test('takes the largest packet that SILK makes', () => {
    const file = Buffer.concat([WHOLE, packetOf(1_024)]);
    expect(silkPackets(file)).toEqual({ ok: true, bytes: file });
  });

  test('refuses more packets than ten minutes have', () => {
    const minutes = (packets: number): Buffer =>
      Buffer.concat([TENCENTS, ...Array.from({ length: packets }, () => packet(1))]);
    expect(silkPackets(minutes(30_000))).toMatchObject({ ok: true });
    expect(silkPackets(minutes(30_001))).toMatchObject({ ok: false, code: 'too-large' });
  });

  test('never throws, and gives what it gives again', () => {
    fc.assert(
      fc.property(fc.constantFrom(MAGIC, TENCENTS), fc.uint8Array({ maxLength: 200 }), (magic, rest) => {
        const packets = silkPackets(Buffer.concat([magic, rest]));
        if (packets.ok) expect(silkPackets(packets.bytes)).toEqual(packets);
      }),
    );
  });
});
