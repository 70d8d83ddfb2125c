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

/** A run of a secret that is shorter says nothing about it. */
const TELLING = 12;

/**
 * Returns `text` with every occurrence of `secret` blotted out, and every longer part of it: a peer may echo what we sent
 * it, and cut it.
 */
export function withoutSecret(text: string, secret: Secret): string {
  const value = secret.reveal();
  if (value === '') return text;
  const whole = text.replaceAll(value, REDACTED).replaceAll(encodeURIComponent(value), REDACTED);
  const parts = new Set(
    Array.from({ length: Math.max(0, value.length - TELLING + 1) }, (_, at) => value.slice(at, at + TELLING)),
  );
  let clean = '';
  for (let at = 0; at < whole.length; ) {
    let end = at;
    while (parts.has(whole.slice(end, end + TELLING))) end += 1;
    if (end === at) {
      clean += whole[at];
      at += 1;
    } else {
      clean += REDACTED;
      at = end + TELLING - 1;
    }
  }
  return clean;
}
