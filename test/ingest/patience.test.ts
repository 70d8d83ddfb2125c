import { afterEach, beforeEach, expect, test } from 'vitest';
import { createPatience } from '../../src/ingest/patience.ts';
import { closeRedis, connectRedis, type RedisClient, untilReady } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';

const LONG = AbortSignal.timeout(60_000);
let own: OwnRedis;
let redis: RedisClient;

beforeEach(async () => {
  own = await openOwnRedis();
  const config = { url: new Secret(own.url), prefix: '', sentinelMaster: '' };
  redis = connectRedis(config, 'hasty', 'test', () => undefined);
  await untilReady(redis, LONG);
});

afterEach(async () => {
  await closeRedis(redis);
  await own[Symbol.asyncDispose]();
});

test('what Redis could not do while it was away is done once it is back', async () => {
  const patiently = createPatience(redis);
  await own.stop();
  let tries = 0;
  const set = patiently(async () => {
    tries += 1;
    return await redis.set('key', 'value');
  }, LONG);
  await own.start();
  expect(await set).toBe('OK');
  expect(await redis.get('key')).toBe('value');
  expect(tries).toBeGreaterThan(0);
});

test('a connection that breaks under way is waited for', async () => {
  const patiently = createPatience(redis);
  const held = redis.blpop('nothing', 30);
  held.catch(() => undefined);
  const get = patiently(() => redis.get('key'), LONG);
  await own.stop();
  await own.start();
  expect(await get).toBeNull();
});

test('ends with the time it is given, and with what Redis refuses for good', async () => {
  const patiently = createPatience(redis);
  await redis.set('text', 'x');
  await expect(patiently(() => redis.lpush('text', 'y'), LONG)).rejects.toThrow('WRONGTYPE');
  await own.stop();
  await expect(patiently(() => redis.get('text'), AbortSignal.timeout(200))).rejects.toThrow();
});

test('of too many at once the rest is refused at once, and later ones are not', async () => {
  const patiently = createPatience(redis, 2);
  const held = Promise.withResolvers<void>();
  const first = [1, 2].map(() => patiently(() => held.promise, LONG));
  await expect(patiently(() => redis.ping(), LONG)).rejects.toThrow('too many');
  held.resolve();
  await Promise.all(first);
  expect(await patiently(() => redis.ping(), LONG)).toBe('PONG');
});
