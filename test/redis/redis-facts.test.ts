import { expect, test } from 'vitest';
import { closeRedis, connectRedis } from '../../src/redis/connect.ts';
import { describeDurability, type RedisFacts, readRedisFacts, redisMistakes } from '../../src/redis/redis-facts.ts';
import { Secret } from '../../src/secret.ts';
import { openOwnRedis } from '../support/own-redis.ts';

const GOOD: RedisFacts = {
  version: '7.0.15',
  evictionPolicy: 'noeviction',
  maxMemoryBytes: 0,
  usedMemoryBytes: 1,
  aofEnabled: true,
  appendFsync: 'everysec',
};

test('a Redis that keeps everything has no mistakes', () => {
  expect(redisMistakes(GOOD)).toEqual([]);
});

test.each<[Partial<RedisFacts>, RegExp]>([
  [{ evictionPolicy: 'allkeys-lru' }, /allkeys-lru.*set maxmemory-policy to noeviction/],
  [{ evictionPolicy: 'volatile-ttl' }, /volatile-ttl.*set maxmemory-policy to noeviction/],
  [{ evictionPolicy: 'unknown' }, /unknown.*set maxmemory-policy to noeviction/],
  [{ aofEnabled: false }, /set appendonly to yes/],
  [{ version: '6.0.16' }, /6\.0\.16 is too old: 6\.2/],
  [{ version: '5.9.9' }, /too old/],
])('%o is told with what to do', (facts, expected) => {
  const mistakes = redisMistakes({ ...GOOD, ...facts });
  expect(mistakes).toHaveLength(1);
  expect(mistakes[0]).toMatch(expected);
});

test.each(['6.2.0', '6.10.1', '7.4.2', '8.0.0', '10.0.0'])('version %s is new enough', (version) => {
  expect(redisMistakes({ ...GOOD, version })).toEqual([]);
});

test('a real Redis is asked without the right to read its configuration', async () => {
  await using parts = new AsyncDisposableStack();
  const own = parts.use(
    await openOwnRedis({
      arguments: ['--maxmemory', '64mb', '--user', 'app', 'on', '>secret', '~*', '&*', '+@all', '-config'],
    }),
  );
  const url = new Secret(own.as('app:secret'));
  const redis = connectRedis({ url, prefix: '', sentinelMaster: '' }, 'patient', 'test', () => undefined);
  parts.defer(() => closeRedis(redis));
  await expect(redis.config('GET', 'maxmemory')).rejects.toThrow('NOPERM');
  expect(await readRedisFacts(redis)).toEqual({
    version: expect.stringMatching(/^\d+\.\d+\.\d+$/),
    evictionPolicy: 'noeviction',
    maxMemoryBytes: 64 * 1024 * 1024,
    usedMemoryBytes: expect.any(Number),
    aofEnabled: true,
    appendFsync: undefined,
  });
});

test.each(['always', 'everysec', 'no'])('one that may be asked tells appendfsync %s', async (setting) => {
  await using own = await openOwnRedis({ arguments: ['--appendfsync', setting] });
  const config = { url: new Secret(own.url), prefix: '', sentinelMaster: '' };
  const redis = connectRedis(config, 'patient', 'test', () => undefined);
  try {
    expect(await readRedisFacts(redis)).toMatchObject({ appendFsync: setting });
  } finally {
    await closeRedis(redis);
  }
});

test.each<[Partial<RedisFacts>, string]>([
  [{}, 'noeviction, AOF on, appendfsync everysec (the last second may be lost at a power cut)'],
  [{ appendFsync: 'always' }, 'noeviction, AOF on, appendfsync always (nothing is lost at a power cut)'],
  [{ appendFsync: undefined }, 'noeviction, AOF on'],
  [{ aofEnabled: false, evictionPolicy: 'allkeys-lru' }, 'allkeys-lru, AOF off'],
])('%o is durable so: %s', (facts, expected) => {
  expect(describeDurability({ ...GOOD, ...facts })).toBe(expected);
});
