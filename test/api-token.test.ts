import { expect, test } from 'vitest';
import { parseApiTokens, SCOPES } from '../src/api-token.ts';

const A = 'a-token-of-16-ch';
const B = 'b'.repeat(256);
const C = 'AZaz09-._~+/==16';

function parsed(text: string): [string, readonly string[]][] | undefined {
  return parseApiTokens(text)?.map(({ token, scopes }) => [token.reveal(), scopes]);
}

test.each([
  [A, [[A, SCOPES]]],
  [`${A},${B}`, [A, B].map((token) => [token, SCOPES])],
  [
    ` ${A} , ingest:${B} `,
    [
      [A, SCOPES],
      [B, ['ingest']],
    ],
  ],
  [`operate+read:${C}`, [[C, ['read', 'operate']]]],
])('%s is a list of tokens', (text, tokens) => {
  expect(parsed(text)).toEqual(tokens);
});

test.each([
  ['empty', ''],
  ['an empty item', `${A},`],
  ['too short', 'a'.repeat(15)],
  ['too long', 'a'.repeat(257)],
  ['with a blank', 'a token of sixteen'],
  ['with a letter of another alphabet', `ä${A}`],
  ['with a scope that there is not', `write:${A}`],
  ['with a scope twice', `read+read:${A}`],
  ['with no scope before the colon', `:${A}`],
  ['with a second colon', `read:ingest:${A}`],
  ['there twice', `${A},${B},${A}`],
  ['there twice with other scopes', `${A},read:${A}`],
])('a list that is %s is none', (_what, text) => {
  expect(parseApiTokens(text)).toBeUndefined();
});

test('no token is printed', () => {
  expect(JSON.stringify(parseApiTokens(A))).not.toContain(A);
});
