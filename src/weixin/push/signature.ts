import { createHash, timingSafeEqual } from 'node:crypto';

/**
 * Returns WeChat's signature of a push: SHA-1 in lower-case hex over the parts, sorted by their characters and joined
 * with nothing between them.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/developers/dev/push/encryption.md
 */
export function signatureOf(parts: readonly string[]): string {
  return createHash('sha1').update(parts.toSorted().join('')).digest('hex');
}

/** True when `given` is the signature of the parts. Takes the same time whichever digit is wrong, and anything at all. */
export function isSignatureOf(given: unknown, parts: readonly string[]): boolean {
  if (typeof given !== 'string' || !/^[0-9a-f]{40}$/i.test(given)) return false;
  return timingSafeEqual(Buffer.from(given, 'hex'), Buffer.from(signatureOf(parts), 'hex'));
}
