import { createHash } from 'node:crypto';
import { Secret } from '../../secret.ts';
import type { IssuedToken } from './issued-token.ts';
import { MAX_TOKEN_LENGTH } from './token-endpoint.ts';

/** Enough to tell any two tokens of an app apart. */
const GENERATION_DIGITS = 16;

/**
 * Parses a token that others issue and we only read. Its generation is a piece of its hash, which gives nothing of it
 * away and is the same in every process. Returns `undefined` for what can be no token.
 */
export function parseForeignToken(text: string): IssuedToken | undefined {
  if (text.length > MAX_TOKEN_LENGTH || !/^[\u0021-\u007e]+$/.test(text)) return undefined;
  const generation = createHash('sha256').update(text).digest('hex').slice(0, GENERATION_DIGITS);
  return { token: new Secret(text), generation };
}
