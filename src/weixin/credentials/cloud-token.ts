import { open } from 'node:fs/promises';
import { orAbort } from '../../abort.ts';
import { fail, type Result, succeed } from '../../failure.ts';
import { Secret } from '../../secret.ts';
import type { CloudCredential } from './account.ts';
import { parseForeignToken } from './foreign-token.ts';
import type { IssuedToken } from './issued-token.ts';
import { MAX_TOKEN_LENGTH } from './token-endpoint.ts';

/**
 * Gives what a call in WeChat Cloud Run carries. WeChat renews the token in the file every ten minutes, so it is read at
 * each use and kept nowhere; a rejected one is replaced by WeChat alone.
 *
 * @throws the signal's reason when it aborts.
 * @see https://developers.weixin.qq.com/minigame/dev/wxcloud/guide/container/cloudcall.html
 */
export async function cloudToken(
  { mode, tokenFile }: CloudCredential,
  signal: AbortSignal,
): Promise<Result<IssuedToken>> {
  if (mode === 'sidecar') return succeed({ token: new Secret(''), generation: 'sidecar' });
  let text: string;
  try {
    text = await orAbort(readStart(tokenFile), signal);
  } catch (error) {
    signal.throwIfAborted();
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
    return fail('cloud-call-not-ready', { detail: `the token file can't be read (${code})` });
  }
  if (text === '') return fail('cloud-call-not-ready', { detail: 'the token file is empty' });
  const token = parseForeignToken(text);
  return token === undefined
    ? fail('cloud-call-not-ready', { detail: 'the token file holds no token' })
    : succeed(token);
}

/** Reads as much of a file as a token may have, and a little more. */
async function readStart(path: string): Promise<string> {
  const file = await open(path);
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(MAX_TOKEN_LENGTH + 16), 0);
    return buffer.toString('utf8', 0, bytesRead).trim();
  } finally {
    await file.close();
  }
}
