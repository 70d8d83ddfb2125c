import { afterAll, beforeAll, expect, test } from 'vitest';
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect.ts';
import { redisTrouble } from '../../src/redis/redis-trouble.ts';
import { untilReplicated } from '../../src/redis/replicated.ts';
import { Secret } from '../../src/secret.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';

let own: OwnRedis;
let redis: RedisClient;

beforeAll(async () => {
  own = await openOwnRedis({ appendOnly: false, arguments: ['--maxmemory', '1'] });
  redis = connect('patient');
});

afterAll(async () => {
  await closeRedis(redis);
  await own[Symbol.asyncDispose]();
});

function connect(patience: 'patient' | 'hasty'): RedisClient {
  return connectRedis({ url: new Secret(own.url), prefix: '', sentinelMaster: '' }, patience, 'test', () => undefined);
}

async function trouble(work: Promise<unknown>): Promise<string | undefined> {
  return work.then(
    () => undefined,
    (error: unknown) => redisTrouble(error),
  );
}

const FULL = /^Redis refuses: OOM command not allowed .+ \(Redis is full: raise its maxmemory\.\)$/;

test('a refusal is told with what to do, without the command; of a transaction and a script that of the command', async () => {
  expect(await trouble(redis.set('a-secret', 'b-secret'))).toMatch(FULL);
  expect(await trouble(redis.multi().get('x').set('a-secret', 'b-secret').exec())).toMatch(FULL);
  const said = await trouble(redis.eval("return redis.call('SET', KEYS[1], 'b-secret')", 1, 'a-secret'));
  expect(said).toMatch(/OOM command not allowed/);
  expect(said).not.toMatch(/secret|script:/);
});

test('one that nobody knows is told as it is', async () => {
  expect(await trouble(redis.call('NOSUCHCOMMAND', 'a-secret'))).toMatch(
    /^Redis refuses: ERR unknown command .NOSUCHCOMMAND.$/,
  );
});

test('a connection that is not there is told', async () => {
  const hasty = connect('hasty');
  expect(await trouble(hasty.get('x'))).toBe('the connection to Redis broke: check REDIS_URL');
  hasty.disconnect();
  expect(await trouble(hasty.get('x'))).toBe('the connection to Redis broke: check REDIS_URL');
});

test('that too few replicas have it is told', async () => {
  const frugal = { wait: async () => 0 } as unknown as RedisClient;
  expect(await trouble(untilReplicated(frugal, 2))).toBe('too few replicas of Redis: 0 of 2 replicas have it');
});

test.each([new Error('OOM'), new TypeError('x'), 'OOM', undefined])('%s is none of Redis', (error) => {
  expect(redisTrouble(error)).toBeUndefined();
});
