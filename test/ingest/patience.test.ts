import { afterEach, beforeEach, expect, test } from 'vitest';
import { createPatience } from '../../src/ingest/patience.ts';
import { closeRedis, connectRedis, type RedisClient, untilReady } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { type Pulse, takePulse } from '../../src/redis/pulse.ts';
import { Secret } from '../../src/secret.ts';
import { SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';

const LONG = AbortSignal.timeout(60_000);
let own: OwnRedis;
let redis: RedisClient;
let pulse: Pulse;
/** Of the pulse. */
let time: number;

beforeEach(async () => {
  own = await openOwnRedis();
  const config = { url: new Secret(own.url), prefix: '', sentinelMaster: '' };
  redis = connectRedis(config, 'hasty', 'test', () => undefined);
  await untilReady(redis, LONG);
  time = 0;
  pulse = takePulse(redis, redisKeys(''), () => time);
});

afterEach(async () => {
  pulse.stop();
  await closeRedis(redis);
  await own[Symbol.asyncDispose]();
});

test('what Redis could not do while it was away is done once it is back', async () => {
  const patiently = createPatience(redis, pulse);
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
  const patiently = createPatience(redis, pulse);
  const held = redis.blpop('nothing', 30);
  held.catch(() => undefined);
  const get = patiently(() => redis.get('key'), LONG);
  await own.stop();
  await own.start();
  expect(await get).toBeNull();
});

test('to a Redis that is silent nothing is sent, and what waits for it is done once it answers', async () => {
  const patiently = createPatience(redis, pulse);
  let sent = 0;
  const get = (signal: AbortSignal): Promise<string | null> =>
    patiently(() => {
      sent += 1;
      return redis.get('key');
    }, signal);
  // It has just been asked, and is not for a second.
  time += 1;
  await eventually(() => (pulse.silentMs === 0 ? true : undefined));
  own.freeze();
  const gone = new AbortController();
  // Not known to be silent yet.
  const early = get(gone.signal);
  await eventually(() => (sent === 1 ? true : undefined));
  time += 5 * SECOND + 1;
  const waiting = Array.from({ length: 100 }, () => get(gone.signal));
  const stays = get(LONG);
  gone.abort(new Error('gone'));
  for (const one of [early, ...waiting]) await expect(one).rejects.toThrow('gone');
  expect(sent).toBe(1);
  own.thaw();
  expect(await stays).toBeNull();
  expect(sent).toBe(2);
});

test('ends with the time it is given, and with what Redis refuses for good', async () => {
  const patiently = createPatience(redis, pulse);
  await redis.set('text', 'x');
  await expect(patiently(() => redis.lpush('text', 'y'), LONG)).rejects.toThrow('WRONGTYPE');
  await own.stop();
  await expect(patiently(() => redis.get('text'), AbortSignal.timeout(200))).rejects.toThrow();
});

test('a defect is no outage, and an outage is told as what it was', async () => {
  const patiently = createPatience(redis, pulse);
  let tries = 0;
  const defect = patiently(async () => {
    tries += 1;
    throw new TypeError('a defect');
  }, LONG);
  await expect(defect).rejects.toThrow('a defect');
  expect(tries).toBe(1);
  const away = patiently(() => Promise.reject(new Error('0 of 1 replicas have it')), AbortSignal.timeout(300));
  await expect(away).rejects.toThrow('0 of 1 replicas have it');
});

test.each(['LOADING', 'READONLY', 'BUSY ', 'NOREPLICAS', 'MASTERDOWN', 'TRYAGAIN'])('%s passes', async (words) => {
  const patiently = createPatience(redis, pulse);
  let tries = 0;
  await patiently(async () => {
    tries += 1;
    if (tries < 3) throw Object.assign(new Error(`${words} and more`), { name: 'ReplyError' });
  }, LONG);
  expect(tries).toBe(3);
});

test('of too many at once the rest is refused at once, and later ones are not', async () => {
  const patiently = createPatience(redis, pulse, 2);
  const held = Promise.withResolvers<void>();
  const first = [1, 2].map(() => patiently(() => held.promise, LONG));
  await expect(patiently(() => redis.ping(), LONG)).rejects.toThrow('too many');
  held.resolve();
  await Promise.all(first);
  expect(await patiently(() => redis.ping(), LONG)).toBe('PONG');
});
