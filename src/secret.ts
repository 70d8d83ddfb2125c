import { inspect } from 'node:util';

const REDACTED = '[redacted]';

/**
 * Holds a value that must never be printed: an AppSecret, an access_token, a password.
 *
 * Whatever turns it into text (template, JSON, `console.log`, a logger) gets `[redacted]`; only `reveal()` gives the
 * value, so a search for `reveal(` lists every place where a secret leaves its wrapper.
 */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
  }

  /** Returns the value. Hand it straight to the peer that needs it; store it nowhere. */
  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return REDACTED;
  }

  toJSON(): string {
    return REDACTED;
  }

  [inspect.custom](): string {
    return REDACTED;
  }
}

/** Returns `text` with every occurrence of `secret` blotted out: a peer may echo what we sent it. */
export function withoutSecret(text: string, secret: Secret): string {
  const value = secret.reveal();
  return value === '' ? text : text.replaceAll(value, REDACTED).replaceAll(encodeURIComponent(value), REDACTED);
}
