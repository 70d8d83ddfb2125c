import { randomBytes, randomInt } from 'node:crypto';
import { type Clock, DAY, MINUTE, SECOND } from '../../time.ts';

/** Life of a token, and how long the one before it stays valid. */
const LIFE_MS = 7_200 * SECOND;
const OVERLAP_MS = 5 * MINUTE;
const FORCES_A_DAY = 20;
const FORCE_INTERVAL_MS = 30 * SECOND;

export type TokenKind = 'stable_token' | 'token';

interface Issued {
  readonly token: string;
  readonly issuedAt: number;
  /** Extended never, cut short when a newer token takes its place. */
  expiresAt: number;
  /** True once a newer token has taken its place for good. */
  replaced: boolean;
}

/** How the API judges a token. The words are those of the errcodes 0, 40001, 40014 and 42001. */
export type TokenVerdict = 'valid' | 'replaced' | 'unknown' | 'expired';

/**
 * The tokens of one app, as WeChat's two token endpoints issue them. They do not affect each other.
 *
 * @see https://developers.weixin.qq.com/doc/service/api/base/api_getstableaccesstoken
 */
export class TokenOffice {
  readonly #now: Clock;
  readonly #issued: Record<TokenKind, Issued[]> = { stable_token: [], token: [] };
  #forcedAt: number[] = [];
  /** Overrides the documented life, to make tokens short-lived. */
  lifeMs = LIFE_MS;

  constructor(now: Clock) {
    this.#now = now;
  }

  /** GET /cgi-bin/token: a new token every time; the one before lives on for five minutes. */
  issue(): { token: string; expiresInSeconds: number } {
    return this.#answer(this.#replace('token', OVERLAP_MS));
  }

  /** POST /cgi-bin/stable_token: the same token until its last five minutes. */
  stable(force: boolean): { token: string; expiresInSeconds: number } | 'too-many-forces' {
    const current = this.#current('stable_token');
    if (force) {
      const now = this.#now();
      this.#forcedAt = this.#forcedAt.filter((at) => now - at < DAY);
      if (this.#forcedAt.length >= FORCES_A_DAY) return 'too-many-forces';
      const last = this.#forcedAt.at(-1);
      if (current !== undefined && last !== undefined && now - last < FORCE_INTERVAL_MS) return this.#answer(current);
      this.#forcedAt.push(now);
      return this.#answer(this.#replace('stable_token', 0));
    }
    const overlap = Math.min(OVERLAP_MS, this.lifeMs / 2);
    if (current !== undefined && current.expiresAt - this.#now() > overlap) return this.#answer(current);
    return this.#answer(this.#replace('stable_token', OVERLAP_MS));
  }

  /** What happens when another system refreshes the token by force: the current one is invalid at once. */
  rotate(kind: TokenKind): void {
    this.#replace(kind, 0);
  }

  judge(token: string): TokenVerdict {
    const known = [...this.#issued.stable_token, ...this.#issued.token].find((issued) => issued.token === token);
    if (known === undefined) return 'unknown';
    if (this.#now() < known.expiresAt) return 'valid';
    return known.replaced ? 'replaced' : 'expired';
  }

  /** Every token ever issued, for tests that look for leaks. */
  get all(): string[] {
    return [...this.#issued.stable_token, ...this.#issued.token].map(({ token }) => token);
  }

  #current(kind: TokenKind): Issued | undefined {
    const last = this.#issued[kind].at(-1);
    return last !== undefined && this.#now() < last.expiresAt ? last : undefined;
  }

  #replace(kind: TokenKind, overlapMs: number): Issued {
    const now = this.#now();
    const last = this.#issued[kind].at(-1);
    if (last !== undefined) {
      last.expiresAt = Math.min(last.expiresAt, now + overlapMs);
      last.replaced = true;
    }
    const issued = { token: newToken(), issuedAt: now, expiresAt: now + this.lifeMs, replaced: false };
    this.#issued[kind].push(issued);
    return issued;
  }

  #answer({ token, expiresAt }: Issued): { token: string; expiresInSeconds: number } {
    return { token, expiresInSeconds: Math.max(1, Math.round((expiresAt - this.#now()) / SECOND)) };
  }
}

/** Two digits, an underscore and base64url, 107 to 157 characters in all, as those seen in the wild. */
function newToken(): string {
  return `${randomInt(50, 99)}_${randomBytes(120).toString('base64url').slice(0, randomInt(104, 155))}`;
}
