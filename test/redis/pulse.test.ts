import { once } from 'node:events';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { closeRedis, connectRedis, type RedisClient, untilReady } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { type Pulse, takePulse } from '../../src/redis/pulse.ts';
import { Secret } from '../../src/secret.ts';
import { SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';

let own: OwnRedis;
let redis: RedisClient;
let pulse: Pulse;
let time: number;

beforeEach(async () => {
  own = await openOwnRedis({ appendOnly: false });
  const config = { url: new Secret(own.url), prefix: '{x}', sentinelMaster: '' };
  redis = connectRedis(config, 'patient', 'test', () => undefined);
  time = 0;
  pulse = takePulse(redis, redisKeys('{x}'), () => time);
});

afterEach(async () => {
  pulse.stop();
  await closeRedis(redis);
  await own[Symbol.asyncDispose]();
});

/** Waits for the next answer. */
async function untilAnswered(): Promise<void> {
  await eventually(() => (pulse.silentMs === 0 ? true : undefined));
}

test('a Redis that answers is not silent, however long', async () => {
  for (let n = 0; n < 3; n += 1) {
    time += 4 * SECOND;
    await untilAnswered();
  }
  expect([pulse.isSilent, pulse.answeringMs]).toEqual([false, 12 * SECOND]);
});

test('one that is frozen or away is silent after five seconds, although commands only wait', async () => {
  for (const [leave, comeBack] of [
    [own.freeze, own.thaw],
    [own.stop, own.start],
  ]) {
    await leave?.();
    time += 5 * SECOND;
    expect(pulse.isSilent).toBe(false);
    time += 1;
    expect([pulse.isSilent, pulse.answeringMs]).toEqual([true, 0]);
    await comeBack?.();
    await untilAnswered();
    expect([pulse.isSilent, pulse.answeringMs]).toEqual([false, 0]);
    time += SECOND;
    expect(pulse.answeringMs).toBe(SECOND);
    await untilAnswered();
  }
});

test('who waits for one that is silent hears of its next answer', async () => {
  await pulse.untilHeard(AbortSignal.abort());
  own.freeze();
  time += 6 * SECOND;
  const gone = new AbortController();
  const given = pulse.untilHeard(gone.signal);
  const stays = pulse.untilHeard(AbortSignal.timeout(60_000));
  gone.abort(new Error('gone'));
  await expect(given).rejects.toThrow('gone');
  own.thaw();
  await stays;
  expect(pulse.isSilent).toBe(false);
});

test('one that refuses is silent for who wants an answer, and heard by who wants a word', async () => {
  await redis.call('ACL', 'SETUSER', 'default', '-exists');
  time += 6 * SECOND;
  await pulse.untilHeard(AbortSignal.timeout(60_000));
  expect(pulse.isSilent).toBe(true);
});

test('a connection that stands again is asked before anything else', async () => {
  const config = { url: new Secret(own.url), prefix: '{x}', sentinelMaster: '' };
  const hasty = connectRedis(config, 'hasty', 'test', () => undefined);
  await untilReady(hasty, AbortSignal.timeout(60_000));
  const other = takePulse(hasty, redisKeys('{x}'), () => time);
  await own.stop();
  time += 6 * SECOND;
  const ready = once(hasty, 'ready');
  await own.start();
  await ready;
  await hasty.ping();
  expect(other.isSilent).toBe(false);
  other.stop();
  await closeRedis(hasty);
});
