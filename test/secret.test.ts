import { inspect } from 'node:util';
import { expect, test } from 'vitest';
import { Secret, withoutSecret } from '../src/secret.ts';

const secret = new Secret('hunter2');

test.each([
  ['a template', () => `${secret}`],
  ['JSON', () => JSON.stringify({ secret })],
  ['inspect', () => inspect({ secret }, { depth: 5, showHidden: true })],
  ['concatenation', () => String(secret)],
])('prints [redacted] in %s', (_name, print) => {
  expect(print()).toContain('[redacted]');
  expect(print()).not.toContain('hunter2');
});

test('gives its value only by reveal', () => {
  expect(secret.reveal()).toBe('hunter2');
  expect(Object.values(secret)).toEqual([]);
});

test('blots a secret out of a text, also percent-encoded', () => {
  const odd = new Secret('a b/c');
  expect(withoutSecret('got a b/c and a%20b%2Fc', odd)).toBe('got [redacted] and [redacted]');
});

test('blots out each longer part of a secret, wherever it is cut', () => {
  const token = new Secret('83_abcdefghijklmnopqrstuvwxyz0123456789');
  expect(withoutSecret('bad token 83_abcdefghijklmnop...', token)).toBe('bad token [redacted]...');
  expect(withoutSecret('ends in uvwxyz0123456789, 83_abcdefghi', token)).toBe('ends in [redacted], [redacted]');
  expect(withoutSecret('83_abc is said of no one', token)).toBe('83_abc is said of no one');
});

test('leaves a text alone when the secret is empty', () => {
  expect(withoutSecret('text', new Secret(''))).toBe('text');
});
