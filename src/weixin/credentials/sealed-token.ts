import { createCipheriv, createDecipheriv, hkdfSync, randomBytes } from 'node:crypto';
import { Secret } from '../../secret.ts';

const ALGORITHM = 'aes-256-gcm';
const IV_BYTES = 12;
const TAG_BYTES = 16;
const MARK_BYTES = 9;

/**
 * Encrypts an access_token for Redis with a key made from the app's secret: every worker of the app can read it, a
 * copy of the Redis database can not.
 */
export function sealToken(token: Secret, appSecret: Secret, appId: string): string {
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv(ALGORITHM, keyOf(appSecret, appId), iv);
  const sealed = Buffer.concat([cipher.update(token.reveal(), 'utf8'), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), sealed]).toString('base64');
}

/** Returns the token; `undefined` when it was sealed with another secret or is damaged. */
export function unsealToken(sealed: string, appSecret: Secret, appId: string): Secret | undefined {
  const bytes = Buffer.from(sealed, 'base64');
  if (bytes.byteLength <= IV_BYTES + TAG_BYTES) return undefined;
  try {
    const decipher = createDecipheriv(ALGORITHM, keyOf(appSecret, appId), bytes.subarray(0, IV_BYTES));
    decipher.setAuthTag(bytes.subarray(IV_BYTES, IV_BYTES + TAG_BYTES));
    const token = Buffer.concat([decipher.update(bytes.subarray(IV_BYTES + TAG_BYTES)), decipher.final()]);
    return new Secret(token.toString('utf8'));
  } catch {
    return undefined;
  }
}

/** Returns 12 characters that tell this secret of an app from its others and give nothing of it away. */
export function markOfSecret(appSecret: Secret, appId: string): string {
  const mark = hkdfSync('sha256', appSecret.reveal(), appId, 'weixin-media-archiver mark', MARK_BYTES);
  return Buffer.from(mark).toString('base64url');
}

function keyOf(appSecret: Secret, appId: string): Uint8Array {
  return new Uint8Array(hkdfSync('sha256', appSecret.reveal(), appId, 'weixin-media-archiver access_token', 32));
}
