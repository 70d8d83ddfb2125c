import { Secret } from './secret.ts';

/**
 * What a token lets its holder do over HTTP.
 *
 * - `ingest`: hand media in.
 * - `read`: look at media, dead letters and metrics.
 * - `operate`: replay and discard dead letters.
 */
export const SCOPES = ['ingest', 'read', 'operate'] as const;

export type Scope = (typeof SCOPES)[number];

export interface ApiToken {
  readonly scopes: readonly Scope[];
  readonly token: Secret;
}

/** What may stand behind `Bearer`, but for its length. @see https://www.rfc-editor.org/rfc/rfc6750#section-2.1 */
const TOKEN = /^[A-Za-z0-9._~+/=-]{16,256}$/;

/**
 * Parses `TOKEN`, which may do everything, or `scope[+scope]:TOKEN`, separated by commas. Returns `undefined` when one is
 * neither, or stands there twice.
 */
export function parseApiTokens(text: string): ApiToken[] | undefined {
  const parsed = text.split(',').map((item) => parseApiToken(item.trim()));
  const tokens = parsed.filter((token) => token !== undefined);
  const distinct = new Set(tokens.map(({ token }) => token.reveal()));
  return distinct.size === parsed.length ? tokens : undefined;
}

function parseApiToken(text: string): ApiToken | undefined {
  // A token holds no colon.
  const [token = '', words] = text.split(':').reverse();
  if (!TOKEN.test(token) || text.split(':').length > 2) return undefined;
  if (words === undefined) return { scopes: SCOPES, token: new Secret(token) };
  const wanted = words.split('+');
  const scopes = SCOPES.filter((scope) => wanted.includes(scope));
  return scopes.length === wanted.length ? { scopes, token: new Secret(token) } : undefined;
}
