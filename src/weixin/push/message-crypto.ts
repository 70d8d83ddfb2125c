import { createCipheriv, createDecipheriv } from 'node:crypto';
import type { Secret } from '../../secret.ts';

/**
 * The encryption of message pushes: AES-256-CBC, its IV the first half of the key, over
 * `random(16) | length of the message in bytes, 32 bits, big endian | message | appId`.
 *
 * @see https://developers.weixin.qq.com/doc/oplatform/developers/dev/push/encryption.md
 */
const ALGORITHM = 'aes-256-cbc';
const IV_BYTES = 16;
const RANDOM_BYTES = 16;
const HEAD_BYTES = RANDOM_BYTES + 4;
const AES_BLOCK_BYTES = 16;
/** PKCS#7 as for a block of 32 bytes, which OpenSSL takes for wrong. */
const PADDING_BLOCK_BYTES = 32;

/** Why a ciphertext is none of ours. For the log: whoever sent it learns only that it was refused. */
export type CipherFault = 'not base64' | 'not whole blocks' | 'wrong padding' | 'wrong length' | 'of another appId';

export type Decrypted =
  | { readonly ok: true; readonly message: Buffer }
  | { readonly ok: false; readonly fault: CipherFault };

/** Decrypts the `Encrypt` of a push whose signature has been checked. `appId` is the one that must stand at its end. */
export function decryptMessage(encrypt: string, encodingAesKey: Secret, appId: string): Decrypted {
  if (!/^[A-Za-z0-9+/]+={0,2}$/.test(encrypt) || encrypt.length % 4 !== 0) return refused('not base64');
  const bytes = Buffer.from(encrypt, 'base64');
  if (bytes.byteLength % AES_BLOCK_BYTES !== 0) return refused('not whole blocks');
  const key = aesKeyOf(encodingAesKey);
  const decipher = createDecipheriv(ALGORITHM, key, key.subarray(0, IV_BYTES)).setAutoPadding(false);
  const padded = Buffer.concat([decipher.update(bytes), decipher.final()]);

  const padding = padded.at(-1) ?? 0;
  const clear = padded.subarray(0, padded.byteLength - padding);
  if (padding < 1 || padding > PADDING_BLOCK_BYTES || padding > padded.byteLength) return refused('wrong padding');
  if (!padded.subarray(clear.byteLength).every((byte) => byte === padding)) return refused('wrong padding');

  if (clear.byteLength < HEAD_BYTES) return refused('wrong length');
  const end = HEAD_BYTES + clear.readUInt32BE(RANDOM_BYTES);
  if (end > clear.byteLength) return refused('wrong length');
  if (!clear.subarray(end).equals(Buffer.from(appId))) return refused('of another appId');
  return { ok: true, message: clear.subarray(HEAD_BYTES, end) };
}

/** Encrypts a message as WeChat does. `random` is 16 bytes, drawn anew for each. */
export function encryptMessage(message: string, encodingAesKey: Secret, appId: string, random: Uint8Array): string {
  const bytes = Buffer.from(message);
  const length = Buffer.alloc(HEAD_BYTES - RANDOM_BYTES);
  length.writeUInt32BE(bytes.byteLength);
  const clear = Buffer.concat([random.subarray(0, RANDOM_BYTES), length, bytes, Buffer.from(appId)]);
  const padding = PADDING_BLOCK_BYTES - (clear.byteLength % PADDING_BLOCK_BYTES);
  const key = aesKeyOf(encodingAesKey);
  const cipher = createCipheriv(ALGORITHM, key, key.subarray(0, IV_BYTES)).setAutoPadding(false);
  return Buffer.concat([cipher.update(clear), cipher.update(Buffer.alloc(padding, padding)), cipher.final()]).toString(
    'base64',
  );
}

/** 43 characters of base64 are 32 bytes, and two bits that say nothing. */
function aesKeyOf(encodingAesKey: Secret): Buffer {
  return Buffer.from(`${encodingAesKey.reveal()}=`, 'base64');
}

function refused(fault: CipherFault): Decrypted {
  return { ok: false, fault };
}
