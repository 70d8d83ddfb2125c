import { expect, test } from 'vitest';
import { isLoopback } from '../src/loopback.ts';

test.each(['127.0.0.1', '127.9.8.7', '::1', '0:0:0:0:0:0:0:1', 'localhost', 'LOCALHOST'])(
  '%s leads to this machine',
  (host) => {
    expect(isLoopback(host)).toBe(true);
  },
);

test.each([
  '',
  '0.0.0.0',
  '::',
  '::2',
  '10.0.0.1',
  '127.0.0.1.example.com',
  'localhost.example.com',
  '1127.0.0.1',
  'example.com',
  '[::1]',
])('%s leads elsewhere, or nobody knows where', (host) => {
  expect(isLoopback(host)).toBe(false);
});
