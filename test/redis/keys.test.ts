import { expect, test } from 'vitest';
import { redisKeys } from '../../src/redis/keys.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';

/** Every key that there is, for two values of what it depends on. */
function allKeys(prefix: string): string[] {
  const { prefix: _, ...keys } = redisKeys(prefix);
  return Object.values(keys).flatMap((key) =>
    typeof key === 'string'
      ? [key]
      : [APP_ID, OTHER_APP_ID].map((part) => (key as (part: string | number) => string)(part)),
  );
}

test('every key lies under the prefix, and so in one slot of a Cluster', () => {
  for (const key of allKeys('x{media}')) expect(key.startsWith('x{media}:')).toBe(true);
});

test('no two things share a key', () => {
  const keys = allKeys('{weixin-media}');
  expect(new Set(keys).size).toBe(keys.length);
});

test('two prefixes share no key', () => {
  const keys = new Set(allKeys('{a}'));
  expect(allKeys('{b}').filter((key) => keys.has(key))).toEqual([]);
});

test('no key is one that BullMQ uses for a lane', () => {
  const lane = /^\{weixin-media\}:media(-|:|$)/;
  expect(allKeys('{weixin-media}').filter((key) => lane.test(key))).toEqual([]);
});
