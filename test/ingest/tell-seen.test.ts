import { expect, test } from 'vitest';
import { createTellSeen } from '../../src/ingest/tell-seen.ts';
import { closeRedis, connectRedis, untilReady } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import { MINUTE } from '../../src/time.ts';
import { createAuthorizations } from '../../src/weixin/credentials/authorizations.ts';
import { testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { openOwnRedis } from '../support/own-redis.ts';
import { COMPONENT_ID, testComponent } from '../support/push.ts';

const LONG = AbortSignal.timeout(60_000);

test('however many come of an app it is told once, by itself, and again ten minutes later', async () => {
  const clock = testClock();
  const told: string[] = [];
  const tellSeen = createTellSeen({ seen: async (_component, appId) => void told.push(appId) }, clock.now);
  const tellAll = (): Promise<unknown> =>
    Promise.all([APP_ID, APP_ID, OTHER_APP_ID, APP_ID].map((appId) => tellSeen(COMPONENT_ID, appId, LONG)));
  await tellAll();
  await tellAll();
  expect(told).toEqual([APP_ID, OTHER_APP_ID]);
  clock.advance(10 * MINUTE);
  await tellAll();
  expect(told).toHaveLength(4);
});

test('what Redis does not take is told to all who wait, and is tried again by the next', async () => {
  let away = true;
  const seen = async (): Promise<void> => {
    if (away) throw new Error('away');
  };
  const tellSeen = createTellSeen({ seen }, testClock().now);
  const ends = await Promise.allSettled([1, 2].map(() => tellSeen(COMPONENT_ID, APP_ID, LONG)));
  expect(ends).toMatchObject([{ reason: { message: 'away' } }, { reason: { message: 'away' } }]);
  away = false;
  await tellSeen(COMPONENT_ID, APP_ID, LONG);
});

test('a Redis that is frozen is given one command for an app, however many give up', async () => {
  await using own = await openOwnRedis({ appendOnly: false });
  const config = { url: new Secret(own.url), prefix: '{x}', sentinelMaster: '' };
  const redis = connectRedis(config, 'hasty', 'test', () => undefined);
  await untilReady(redis, LONG);
  const authorizations = createAuthorizations(redis, redisKeys('{x}'));
  const tellSeen = createTellSeen({ seen: (_, appId) => authorizations.see(testComponent(), appId) }, Date.now);
  own.freeze();
  for (let round = 0; round < 3; round += 1) {
    const gone = new AbortController();
    const pushes = Array.from({ length: 20 }, () => tellSeen(COMPONENT_ID, APP_ID, gone.signal));
    gone.abort(new Error('gone'));
    for (const push of pushes) await expect(push).rejects.toThrow('gone');
  }
  own.thaw();
  await tellSeen(COMPONENT_ID, APP_ID, LONG);
  // One of ours, and one of the script that writes.
  expect(await redis.info('commandstats')).toMatch(/^cmdstat_hget:calls=2,/m);
  expect([...(await authorizations.list(COMPONENT_ID)).keys()]).toEqual([APP_ID]);
  await closeRedis(redis);
});
