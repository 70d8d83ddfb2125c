import { createCipheriv } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decryptMessage, encryptMessage } from '../../../src/weixin/push/message-crypto.ts';
import { V1, V2 } from './vectors.ts';

const KEY = V2.encodingAesKey;
const APP = V2.appId;

function clearOf(encrypt: string, key = KEY, appId: string = APP): string {
  const decrypted = decryptMessage(encrypt, key, appId);
  return decrypted.ok ? decrypted.message.toString() : decrypted.fault;
}

describe('the official examples', () => {
  test('a push is decrypted', () => {
    expect(clearOf(V1.safe.encrypt, V1.encodingAesKey, V1.appId)).toBe(V1.safe.message);
  });

  test.each([
    ['that push', V1.encodingAesKey, V1.appId, V1.safe],
    ['the reply', V1.encodingAesKey, V1.appId, V1.reply],
    ['a text whose characters are longer than a byte', KEY, APP, V2],
  ])('%s is encrypted to the same letters, and back', (_name, key, appId, { message, random, encrypt }) => {
    expect(encryptMessage(message, key, appId, Buffer.from(random))).toBe(encrypt);
    expect(clearOf(encrypt, key, appId)).toBe(message);
  });
});

test('any text comes back as it was', () => {
  fc.assert(
    fc.property(
      fc.string({ unit: 'grapheme', maxLength: 200 }),
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      (text, random) => {
        expect(clearOf(encryptMessage(text, KEY, APP, random))).toBe(Buffer.from(text).toString());
      },
    ),
  );
});

test('a ciphertext with any byte changed is refused or other than it was, and never throws', () => {
  const whole = Buffer.from(V1.safe.encrypt, 'base64');
  fc.assert(
    fc.property(fc.nat(whole.byteLength - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
      const changed = Buffer.from(whole);
      changed[at] = (changed[at] ?? 0) ^ mask;
      const clear = clearOf(changed.toString('base64'), V1.encodingAesKey, V1.appId);
      // Its random part is nobody's business: a change in its first block alone may be seen in no other.
      if (at >= 16) expect(clear).not.toBe(V1.safe.message);
      // The appId and the padding stand in the last blocks.
      if (at >= whole.byteLength - 48) expect(clear).toMatch(/^(wrong padding|wrong length|of another appId)$/);
    }),
    { numRuns: 500 },
  );
});

test('anything at all is refused', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        fc.string(),
        fc.base64String(),
        fc.uint8Array().map((bytes) => Buffer.from(bytes).toString('base64')),
      ),
      (text) => {
        expect(decryptMessage(text, KEY, APP).ok).toBe(false);
      },
    ),
  );
});

/** Encrypts these very bytes, with whatever stands in the place of the padding. */
function encryptBytes(clear: Buffer): string {
  const key = Buffer.from(`${KEY.reveal()}=`, 'base64');
  const cipher = createCipheriv('aes-256-cbc', key, key.subarray(0, 16)).setAutoPadding(false);
  return Buffer.concat([cipher.update(clear), cipher.final()]).toString('base64');
}

/** random, length, text, appId; the length as it is given. */
function parts(length: number, appId: string = APP, text = 'hi'): Buffer {
  const count = Buffer.alloc(4);
  count.writeUInt32BE(length);
  return Buffer.concat([Buffer.alloc(16, 'r'), count, Buffer.from(text), Buffer.from(appId)]);
}

const pad = (bytes: number, value = bytes): Buffer => Buffer.alloc(bytes, value);
const BLOCKWISE = 'twenty-six characters, all';

describe('a message that is sealed with our key', () => {
  test.each<[string, string, Buffer]>([
    ['is taken with a padding of 24', 'hi', Buffer.concat([parts(2), pad(24)])],
    ['is taken with a padding of 32', BLOCKWISE, Buffer.concat([parts(26, APP, BLOCKWISE), pad(32)])],
    ['is taken with nothing in it', '', Buffer.concat([parts(0, APP, ''), pad(26)])],
    ['is refused with a padding of 0', 'wrong padding', Buffer.concat([parts(2), pad(24, 0)])],
    ['is refused with a padding of 33', 'wrong padding', Buffer.concat([parts(2), pad(24, 33)])],
    ['is refused with a padding that is longer than it is', 'wrong padding', pad(16, 17)],
    ['is refused with a padding of two values', 'wrong padding', Buffer.concat([parts(2), pad(12, 7), pad(12, 24)])],
    ['is refused when it is all padding', 'wrong length', pad(32)],
    ['is refused when it ends within its length', 'wrong length', Buffer.concat([pad(18, 1), pad(14)])],
    ['is refused with a length beyond its end', 'wrong length', Buffer.concat([parts(2_000), pad(24)])],
    ['is refused with the longest length', 'wrong length', Buffer.concat([parts(0xffff_ffff), pad(24)])],
    ['is refused with a length that reaches into the appId', 'of another appId', Buffer.concat([parts(3), pad(24)])],
    ['is refused with a length that is short', 'of another appId', Buffer.concat([parts(1), pad(24)])],
    ['is refused with another appId', 'of another appId', Buffer.concat([parts(2, V1.appId), pad(24)])],
    ['is refused without an appId', 'of another appId', Buffer.concat([parts(2, ''), pad(10)])],
  ])('%s', (_name, expected, clear) => {
    expect(clearOf(encryptBytes(clear))).toBe(expected);
  });
});

test.each([
  ['', 'not base64'],
  ['====', 'not base64'],
  ['YQ', 'not base64'],
  ['YQ==', 'not whole blocks'],
  ['YWJj\nYWJj', 'not base64'],
  ['-_-_', 'not base64'],
])('%j is refused', (text, fault) => {
  expect(clearOf(text)).toBe(fault);
});

test('the key of another account opens nothing', () => {
  expect(clearOf(V1.safe.encrypt, KEY, V1.appId)).toMatch(/^wrong|^of another/);
});
