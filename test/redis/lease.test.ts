import { afterEach, beforeEach, expect, test } from 'vitest';
import { releaseLease, takeLease } from '../../src/redis/lease.ts';
import { HOUR } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

let corner: TestRedis;
let key: string;

beforeEach(async () => {
  corner = await openTestRedis();
  key = `${corner.prefix}:lease`;
});

afterEach(() => corner[Symbol.asyncDispose]());

test('of many who ask at once one gets it', async () => {
  const connections = [corner.redis, corner.connect(), corner.connect()];
  const taken = await Promise.all(
    Array.from({ length: 30 }, (_, index) => takeLease(connections[index % 3] ?? corner.redis, key, HOUR)),
  );
  expect(taken.filter((lease) => lease !== undefined)).toHaveLength(1);
});

test('once given back it can be taken again, by another owner', async () => {
  const first = await takeLease(corner.redis, key, HOUR);
  if (first === undefined) throw new Error('nobody held it');
  await releaseLease(corner.redis, first);
  await releaseLease(corner.redis, first);
  expect(await corner.redis.exists(key)).toBe(0);
  const second = await takeLease(corner.redis, key, HOUR);
  expect(second?.owner).not.toBe(first.owner);
});

test('it ends by itself when its holder dies', async () => {
  await takeLease(corner.redis, key, 50);
  expect(await corner.redis.pttl(key)).toBeGreaterThan(0);
  await eventually(() => takeLease(corner.redis, key, HOUR));
});

test('a holder that was too slow does not give back the lease of the next one', async () => {
  const slow = await takeLease(corner.redis, key, HOUR);
  if (slow === undefined) throw new Error('nobody held it');
  await corner.redis.del(key);
  const next = await takeLease(corner.redis, key, HOUR);
  await releaseLease(corner.redis, slow);
  expect(await corner.redis.get(key)).toBe(next?.owner);
  expect(await takeLease(corner.redis, key, HOUR)).toBeUndefined();
});
