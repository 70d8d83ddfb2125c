import { Secret } from '../secret.ts';

/** Parses `redis://` or `rediss://` with user, password and database number; `undefined` for anything else. */
export function parseRedisUrl(text: string): Secret | undefined {
  if (!URL.canParse(text)) return undefined;
  const { protocol, username, password, pathname } = new URL(text);
  if (!/^rediss?:$/.test(protocol) || !/^(\/\d{0,5})?$/.test(pathname)) return undefined;
  try {
    for (const part of [username, password]) decodeURIComponent(part);
  } catch {
    return undefined;
  }
  return new Secret(text);
}
