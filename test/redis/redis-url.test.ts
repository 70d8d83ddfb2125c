import { expect, test } from 'vitest';
import { parseRedisUrl } from '../../src/redis/redis-url.ts';

test.each([
  'redis://127.0.0.1',
  'redis://127.0.0.1:6379/',
  'redis://[::1]:6379/15',
  'rediss://user:p%40ss%2Fword@redis.example.com:6380/1',
  'redis://:only-a-password@host',
])('%s is an address of Redis', (text) => {
  expect(parseRedisUrl(text)?.reveal()).toBe(text);
});

test.each([
  '',
  'host:6379',
  'http://host',
  'redis//host',
  'redis://host:port',
  'redis://host:65536',
  'redis://host/second',
  'redis://host/1/2',
  'redis://:100%@host',
  'redis://a%4:1@host',
])('%j is none', (text) => {
  expect(parseRedisUrl(text)).toBeUndefined();
});
