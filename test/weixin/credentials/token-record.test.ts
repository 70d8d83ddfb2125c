import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { failure } from '../../../src/failure.ts';
import { Secret } from '../../../src/secret.ts';
import { HOUR } from '../../../src/time.ts';
import {
  type CountedCalls,
  readTokenState,
  type TokenPlace,
  type TokenState,
  writeCountedCalls,
  writeFailedCall,
  writeTokenRecord,
} from '../../../src/weixin/credentials/token-record.ts';
import { APP_ID, APP_SECRET } from '../../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../../support/redis.ts';

const owner = { appId: APP_ID, secret: new Secret(APP_SECRET) };
let corner: TestRedis;
beforeEach(async () => {
  corner = await openTestRedis();
});
afterEach(() => corner[Symbol.asyncDispose]());

describe('the state of a token in Redis', () => {
  const calls: CountedCalls = { forcedAt: [1, 2], replacedAt: [3] };
  const failed = { until: 5, count: 2, failure: failure('ip-not-allowed', { errcode: 40164, detail: '203.0.113.7' }) };
  const record = {
    token: new Secret('the token'),
    generation: 'g',
    obtainedAt: 1,
    confirmedAt: 2,
    expiresAt: 3,
    rejections: 4,
  };

  async function openPlace(): Promise<TokenPlace> {
    const lease = { key: corner.keys.tokenLease(APP_ID), owner: 'we' };
    await corner.redis.set(lease.key, lease.owner);
    return { redis: corner.redis, key: corner.keys.token(APP_ID), lease };
  }

  const read = (of = owner): Promise<TokenState> => readTokenState(corner.redis, corner.keys.token(APP_ID), of);

  test('is empty at first', async () => {
    const empty = { record: undefined, calls: { forcedAt: [], replacedAt: [] }, failed: undefined };
    expect(await read()).toEqual(empty);
  });

  test('keeps counted calls and a failure where there is no token', async () => {
    const place = await openPlace();
    expect(await writeCountedCalls(place, calls)).toBe(true);
    expect(await writeFailedCall(place, owner, failed)).toBe(true);
    expect(await read()).toEqual({ record: undefined, calls, failed });
    expect(await corner.redis.pttl(place.key)).toBeGreaterThan(23 * HOUR);
  });

  test('keeps the counted calls when a token is written, and forgets the failure', async () => {
    const place = await openPlace();
    await writeCountedCalls(place, calls);
    await writeFailedCall(place, owner, failed);
    expect(await writeTokenRecord(place, owner, record)).toBe(true);
    expect(await read()).toEqual({ record, calls, failed: undefined });
  });

  test('keeps the token when a failure is written', async () => {
    const place = await openPlace();
    await writeTokenRecord(place, owner, record);
    await writeFailedCall(place, owner, failed);
    expect(await read()).toMatchObject({ record: { generation: 'g' }, failed });
  });

  test('is not written by who has lost the lease', async () => {
    const place = await openPlace();
    const late = { ...place, lease: { ...place.lease, owner: 'somebody else' } };
    expect(await writeCountedCalls(late, calls)).toBe(false);
    expect(await writeFailedCall(late, owner, failed)).toBe(false);
    expect(await writeTokenRecord(late, owner, record)).toBe(false);
    expect(await corner.redis.exists(place.key)).toBe(0);
  });

  test('of another secret tells what was counted, and nothing else', async () => {
    const place = await openPlace();
    await writeTokenRecord(place, owner, record);
    await writeCountedCalls(place, calls);
    await writeFailedCall(place, owner, failed);
    const other = { appId: APP_ID, secret: new Secret('another') };
    expect(await read(other)).toEqual({ record: undefined, calls, failed: undefined });
  });
});
