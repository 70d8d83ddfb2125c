import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { isSignatureOf, signatureOf } from '../../../src/weixin/push/signature.ts';
import { V1 } from './vectors.ts';

const token = V1.token.reveal();
const { verification, plaintext, safe, reply } = V1;

describe('the signatures of the official example', () => {
  test.each([
    ['the check of the address', [token, verification.timestamp, verification.nonce], verification.signature],
    ['a push in plaintext', [token, plaintext.timestamp, plaintext.nonce], plaintext.signature],
    ['a push in safe mode, without its body', [token, safe.timestamp, safe.nonce], safe.signature],
    ['a push in safe mode', [token, safe.timestamp, safe.nonce, safe.encrypt], safe.msgSignature],
    ['a reply', [token, reply.timestamp, reply.nonce, reply.encrypt], reply.msgSignature],
  ])('%s', (_name, parts, signature) => {
    expect(signatureOf(parts)).toBe(signature);
    expect(isSignatureOf(signature, parts)).toBe(true);
    expect(isSignatureOf(signature.toUpperCase(), parts.toReversed())).toBe(true);
  });
});

test.each([
  ['nothing', undefined],
  ['null', null],
  ['an empty text', ''],
  ['a parameter that came twice', [verification.signature, verification.signature]],
  ['an object', { length: 40 }],
  ['one digit less', verification.signature.slice(1)],
  ['one digit more', `${verification.signature}0`],
  ['no hex', 'g'.repeat(40)],
  ['a line break behind it', `${verification.signature}\n`],
  ['characters that are longer in UTF-8', 'é'.repeat(40)],
])('%s is no signature', (_name, given) => {
  expect(isSignatureOf(given, [token, verification.timestamp, verification.nonce])).toBe(false);
});

test('a signature with any digit changed is refused', () => {
  const parts = [token, verification.timestamp, verification.nonce];
  fc.assert(
    fc.property(fc.nat(39), fc.integer({ min: 1, max: 15 }), (at, by) => {
      const digits = [...verification.signature];
      digits[at] = ((Number.parseInt(digits[at] ?? '', 16) + by) % 16).toString(16);
      expect(isSignatureOf(digits.join(''), parts)).toBe(false);
    }),
  );
});
