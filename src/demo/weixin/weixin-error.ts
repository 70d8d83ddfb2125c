import { randomBytes, randomInt } from 'node:crypto';
import { SECOND } from '../../time.ts';
import { MEDIA_ERROR_CODES } from '../../weixin/error-codes.ts';

/** An error as WeChat writes it: compact JSON, with a hint and a rid that begin with the time. */
export function weixinError(errcode: number, errmsg: string | undefined, now: number, asString = false): string {
  const seconds = Math.floor(now / SECOND);
  const known: Readonly<Record<number, { readonly meaning: string }>> = MEDIA_ERROR_CODES;
  const words = errmsg ?? known[errcode]?.meaning ?? 'unknown error';
  const hint = `${randomBytes(3).toString('base64url')}0${String(seconds % 1000).padStart(3, '0')}${randomInt(10, 99_999)}`;
  const rid = `${seconds.toString(16)}-${randomBytes(4).toString('hex')}-${randomBytes(4).toString('hex')}`;
  return JSON.stringify({
    errcode: asString ? String(errcode) : errcode,
    errmsg: `${words} hint: [${hint}] rid: ${rid}`,
  });
}
