import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startWeixinSimulator, type WeixinSimulator } from '../../../src/demo/weixin/weixin-simulator.ts';
import { type Failure, failure } from '../../../src/failure.ts';
import { Secret } from '../../../src/secret.ts';
import { HOUR, MINUTE, SECOND } from '../../../src/time.ts';
import { createApiHosts } from '../../../src/weixin/api-hosts.ts';
import type { Account } from '../../../src/weixin/credentials/account.ts';
import type { TokenRefresh, TokenSource } from '../../../src/weixin/credentials/issued-token.ts';
import { sealToken, unsealToken } from '../../../src/weixin/credentials/sealed-token.ts';
import { writeFailedCall } from '../../../src/weixin/credentials/token-record.ts';
import { createTokenSource } from '../../../src/weixin/credentials/token-source.ts';
import { createHttpPool, type HttpPool } from '../../../src/weixin/http.ts';
import { type TestClock, testClock } from '../../support/clock.ts';
import { eventually } from '../../support/eventually.ts';
import { APP_ID, APP_SECRET, testAccount } from '../../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../../support/redis.ts';
import { TEST_TIMEOUTS } from '../../support/weixin.ts';

const never = new AbortController().signal;
let corner: TestRedis;
let simulator: WeixinSimulator;
let http: HttpPool;
let clock: TestClock;
let refreshes: TokenRefresh[];

beforeEach(async () => {
  corner = await openTestRedis();
  simulator = await startWeixinSimulator();
  simulator.addApp({ appId: APP_ID, secret: APP_SECRET });
  http = createHttpPool(TEST_TIMEOUTS, 8);
  clock = testClock(Date.now());
  refreshes = [];
});

afterEach(async () => {
  await http.close();
  await simulator.close();
  await corner[Symbol.asyncDispose]();
});

/** A token source as another process would have it: its own memory and its own connection. */
function source(urls: readonly string[] = [simulator.url]): TokenSource {
  return createTokenSource({
    redis: corner.connect(),
    keys: corner.keys,
    endpoint: {
      hosts: createApiHosts(
        urls.map((url) => new URL(url)),
        clock.now,
      ),
      http,
    },
    now: clock.now,
    random: () => 0.5,
    onRefresh: (refresh) => refreshes.push(refresh),
  });
}

/** Moves our clock and WeChat's. */
function advance(ms: number): void {
  clock.advance(ms);
  simulator.advance(ms);
}

async function tokenOf(
  from: TokenSource,
  account: Account = testAccount(),
): Promise<{ token: string; generation: string }> {
  const issued = await from.current(account, never);
  if (!issued.ok) throw new Error(issued.failure.code);
  return { token: issued.value.token.reveal(), generation: issued.value.generation };
}

const calls = (): number => simulator.counts.tokens.get(APP_ID) ?? 0;
const forcedCalls = (): number => simulator.counts.forced.get(APP_ID) ?? 0;

/** Nothing listens there: a connection is never made. */
const NOBODY = 'http://127.0.0.1:1';

/** Rejects the current token of a source, and returns what kept it from being replaced. */
async function rejectToken(from: TokenSource, account: Account = testAccount()): Promise<Failure | undefined> {
  const issued = await from.current(account, never);
  return issued.ok ? from.reject(account, issued.value.generation, never) : issued.failure;
}

/** Has a token rejected until the next call is a forced one. */
async function comeToForcing(from: TokenSource): Promise<void> {
  await rejectToken(from);
  advance(11 * SECOND);
  await rejectToken(from);
  advance(11 * SECOND);
}

describe('the first use', () => {
  test('costs one call, however many jobs of however many processes ask', async () => {
    const sources = [source(), source(), source()];
    const tokens = await Promise.all(
      Array.from({ length: 300 }, (_, index) => tokenOf(sources[index % 3] ?? source())),
    );
    expect(new Set(tokens.map(({ token }) => token)).size).toBe(1);
    expect(calls()).toBe(1);
  });

  test('of a later process costs none', async () => {
    const { token } = await tokenOf(source());
    expect((await tokenOf(source())).token).toBe(token);
    expect(calls()).toBe(1);
  });
});

describe('a storm of rejections', () => {
  test.each(['stable_token', 'token'] as const)(
    'of a %s by 500 jobs over three processes costs one call',
    async (type) => {
      const account = testAccount(APP_ID, type);
      const sources = [source(), source(), source()];
      const before = await Promise.all(sources.map((from) => tokenOf(from, account)));
      advance(MINUTE);
      simulator.rotateToken(APP_ID, type);
      const jobs = Array.from({ length: 500 }, async (_, index) => {
        const from = sources[index % 3] ?? source();
        await from.reject(account, before[index % 3]?.generation ?? '', never);
        return (await tokenOf(from, account)).token;
      });
      const after = new Set(await Promise.all(jobs));
      expect(after.size).toBe(1);
      expect(after.has(before[0]?.token ?? '')).toBe(false);
      expect(calls()).toBe(2);
    },
  );

  test('that comes late, about a token that has been replaced, costs nothing', async () => {
    const [first, second] = [source(), source()];
    const old = await tokenOf(first);
    await tokenOf(second);
    simulator.rotateToken(APP_ID);
    await first.reject(testAccount(), old.generation, never);
    await second.reject(testAccount(), old.generation, never);
    await first.reject(testAccount(), old.generation, never);
    expect(calls()).toBe(2);
    expect((await tokenOf(second)).token).toBe((await tokenOf(first)).token);
  });

  test('of a token that WeChat keeps giving out is bounded, and then forced', async () => {
    const from = source();
    const { generation } = await tokenOf(from);
    const rejected = async (): Promise<void> => {
      for (let count = 0; count < 50; count += 1) await from.reject(testAccount(), generation, never);
    };
    await rejected();
    expect(calls()).toBe(2);
    advance(11 * SECOND);
    await rejected();
    expect(calls()).toBe(3);
    expect((await tokenOf(from)).generation).toBe(generation);
    advance(11 * SECOND);
    await rejected();
    expect(calls()).toBe(4);
    expect(refreshes.map(({ result, forced }) => [result, forced])).toEqual([
      ['issued', false],
      ['same', false],
      ['same', false],
      ['issued', true],
    ]);
    expect((await tokenOf(from)).generation).not.toBe(generation);
  });
});

describe('a forced call', () => {
  test('that breaks off each time is made 20 times a day at most and 30 s apart, by all processes together', async () => {
    const sources = [source(), source()];
    const forcedAt: number[] = [];
    simulator.arm({ endpoint: 'token', forced: true, action: { type: 'reset' } });
    const live = async (steps: number, stepMs: number): Promise<void> => {
      for (let step = 0; step < steps; step += 1) {
        const before = forcedCalls();
        for (const from of sources) await rejectToken(from);
        if (forcedCalls() > before) forcedAt.push(clock.now());
        advance(stepMs);
      }
    };
    await live(60, 5 * SECOND);
    expect(forcedAt.length).toBeGreaterThan(5);
    const pauses = forcedAt.slice(1).map((at, index) => at - (forcedAt[index] ?? 0));
    expect(Math.min(...pauses)).toBeGreaterThanOrEqual(30 * SECOND);
    expect(forcedCalls()).toBe(forcedAt.length);
    await live(60, MINUTE);
    expect(forcedCalls()).toBe(20);
  });

  test('whose answer is lost is not repeated: the token that it brought is asked for after the pause', async () => {
    const [first, second] = [source(), source()];
    const { token } = await tokenOf(first);
    await comeToForcing(first);
    simulator.arm({ endpoint: 'token', forced: true, action: { type: 'lost-answer' } });
    expect(await rejectToken(first)).toMatchObject({ code: 'weixin-unreachable' });
    expect(await rejectToken(second)).toMatchObject({ code: 'weixin-unreachable' });
    expect([calls(), forcedCalls()]).toEqual([4, 1]);
    advance(5 * SECOND);
    expect(await rejectToken(second)).toBeUndefined();
    expect([calls(), forcedCalls()]).toEqual([5, 1]);
    expect((await tokenOf(second)).token).not.toBe(token);
    expect(simulator.issuedTokens()).toContain((await tokenOf(second)).token);
  });

  test('counts although the job that asked for it was stopped under way', async () => {
    const from = source();
    await comeToForcing(from);
    const { generation } = await tokenOf(from);
    simulator.arm({ endpoint: 'token', forced: true, action: { type: 'hang', where: 'headers' } });
    const stop = new AbortController();
    const rejecting = from.reject(testAccount(), generation, stop.signal);
    await eventually(() => (forcedCalls() === 1 ? true : undefined));
    stop.abort(new Error('stopped'));
    await expect(rejecting).rejects.toThrow('stopped');
    await eventually(async () =>
      (await corner.redis.exists(corner.keys.tokenLease(APP_ID))) === 0 ? true : undefined,
    );
    await rejectToken(source());
    expect([calls(), forcedCalls()]).toEqual([5, 1]);
  });

  test('is made at the next host when the first could not be connected to', async () => {
    const from = source([NOBODY, simulator.url]);
    await comeToForcing(source());
    expect(await rejectToken(from)).toBeUndefined();
    expect(forcedCalls()).toBe(1);
  });
});

describe('a failed call', () => {
  const types = ['stable_token', 'token'] as const;
  /** What a first failure costs: blips are tried again within the call where that changes nothing at WeChat. */
  const TRIES = { stable_token: 3, token: 1 };

  test.each(types)('for a %s stands for all: 300 jobs of two processes get its failure', async (type) => {
    const account = testAccount(APP_ID, type);
    const sources = [source(), source()];
    simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: -1 } });
    const jobs = Array.from({ length: 300 }, (_, index) => (sources[index % 2] ?? source()).current(account, never));
    for (const issued of await Promise.all(jobs))
      expect(issued).toMatchObject({ ok: false, failure: { code: 'weixin-busy', errcode: -1 } });
    expect(calls()).toBe(TRIES[type]);
    expect(refreshes.map(({ result }) => result)).toEqual(['failed']);
  });

  test.each(types)('for a %s is repeated once a pause, which doubles', async (type) => {
    const account = testAccount(APP_ID, type);
    const sources = [source(), source()];
    simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: -1 } });
    const asks: number[] = [];
    const startedAt = clock.now();
    for (let second = 0; second < 60; second += 1) {
      const before = calls();
      await Promise.all(sources.map((from) => from.current(account, never)));
      if (calls() > before) asks.push((clock.now() - startedAt) / SECOND);
      advance(SECOND);
    }
    // 3.75, 7.5 and 15 s, at the seconds after them; then 30 or 15.
    const expected = { stable_token: [0, 4, 12, 27, 42, 57], token: [0, 4, 12, 27, 57] }[type];
    expect(asks).toEqual(expected);
    expect(calls()).toBe(TRIES[type] + expected.length - 1);
  });

  test('is told in full, so that a gate closes with its reason', async () => {
    const errmsg = `invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist`;
    simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: 40164, errmsg } });
    const first = await source().current(testAccount(), never);
    const second = await source().current(testAccount(), never);
    expect(second).toMatchObject({ ok: false, failure: { code: 'ip-not-allowed', errcode: 40164 } });
    expect(second).toMatchObject({ failure: { detail: '203.0.113.7', errmsg: expect.stringContaining(errmsg) } });
    expect(second).toMatchObject({ failure: { rid: expect.stringMatching(/^[0-9a-f-]+$/) } });
    expect(second).toEqual(first);
    expect(calls()).toBe(1);
  });

  test.each(types)('for a %s does not stand longer for being read, and is forgotten with a success', async (type) => {
    const account = testAccount(APP_ID, type);
    const from = source();
    const disarm = simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: 40164 } });
    for (let second = 0; second < 60; second += 1) {
      expect((await from.current(account, never)).ok).toBe(false);
      advance(SECOND);
    }
    disarm();
    // What somebody has corrected is noticed within the pause.
    for (let second = 0; second < 60; second += 1) {
      await from.current(account, never);
      advance(SECOND);
    }
    expect((await from.current(account, never)).ok).toBe(true);
    const fields = Object.keys(await corner.redis.hgetall(corner.keys.token(APP_ID)));
    expect(fields.filter((field) => field.startsWith('failed'))).toEqual([]);
  });

  test('with one secret says nothing of another', async () => {
    const wrong: Account = { appId: APP_ID, credential: { type: 'stable_token', secret: new Secret('mistyped') } };
    const refused = { ok: false, failure: { code: 'app-secret-invalid', errcode: 40125 } };
    expect(await source().current(wrong, never)).toMatchObject(refused);
    // Without any pause, and a success with the right one does not send those with the wrong one to WeChat again.
    await tokenOf(source());
    expect(await source().current(wrong, never)).toMatchObject(refused);
    expect(calls()).toBe(2);
    expect(JSON.stringify(await corner.redis.hgetall(corner.keys.token(APP_ID)))).not.toContain('mistyped');
  });

  test('to renew early leaves the token in use, and is repeated once a pause', async () => {
    const sources = [source(), source()];
    const [{ token } = { token: '' }] = await Promise.all(sources.map((from) => tokenOf(from)));
    advance(2 * HOUR - 85 * SECOND);
    simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: -1 } });
    for (let second = 0; second < 80; second += 1) {
      for (const from of sources) expect((await tokenOf(from)).token).toBe(token);
      advance(SECOND);
    }
    expect(calls() - 1).toBeLessThanOrEqual(TRIES.stable_token + 6);
    simulator.disarm();
    advance(MINUTE);
    for (const from of sources) expect((await tokenOf(from)).token).not.toBe(token);
  });

  test('is met by a job that waited for the one that made it', async () => {
    const lease = { key: corner.keys.tokenLease(APP_ID), owner: 'another process' };
    await corner.redis.set(lease.key, lease.owner);
    const waiting = source().current(testAccount(), never);
    const failed = { until: clock.now() + SECOND, count: 1, failure: failure('weixin-busy', { errcode: -1 }) };
    const place = { redis: corner.redis, key: corner.keys.token(APP_ID), lease };
    expect(await writeFailedCall(place, { appId: APP_ID, secret: new Secret(APP_SECRET) }, failed)).toBe(true);
    expect(await waiting).toEqual({ ok: false, failure: failed.failure });
    expect(calls()).toBe(0);
  });

  test('whose answer was lost has /cgi-bin/token issue one token a pause, not one a try or a job', async () => {
    const account = testAccount(APP_ID, 'token');
    const sources = [source(), source()];
    simulator.arm({ endpoint: 'token', action: { type: 'lost-answer' } });
    for (let step = 0; step < 180; step += 1) {
      for (const issued of await Promise.all(sources.map((from) => from.current(account, never))))
        expect(issued).toMatchObject({ ok: false, failure: { code: 'weixin-unreachable' } });
      advance(10 * SECOND);
    }
    expect(simulator.issuedTokens().length).toBe(calls());
    expect(calls()).toBeGreaterThan(10);
    expect(calls()).toBeLessThanOrEqual(30);
  });

  test('of /cgi-bin/token for a rejection counts towards the 30 of an hour', async () => {
    const account = testAccount(APP_ID, 'token');
    const from = source();
    await tokenOf(from, account);
    advance(MINUTE);
    // Every other one is lost, so that no pause grows.
    simulator.arm({ endpoint: 'token', every: 2, action: { type: 'lost-answer' } });
    for (let step = 0; step < 200; step += 1) {
      await rejectToken(from, account);
      advance(10 * SECOND);
    }
    expect(calls() - 1).toBe(30);
  });

  test('for a rejection is told to all who report it, also while no further call may be made', async () => {
    const account = testAccount(APP_ID, 'token');
    const sources = [source(), source()];
    for (const from of sources) await tokenOf(from, account);
    advance(MINUTE);
    simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: 40164 } });
    for (const from of sources) expect(await rejectToken(from, account)).toMatchObject({ code: 'ip-not-allowed' });
    expect(calls()).toBe(2);
  });

  test('that lies in Redis damaged is none', async () => {
    simulator.arm({ endpoint: 'token', times: 1, action: { type: 'errcode', errcode: 40164 } });
    await source().current(testAccount(), never);
    const key = corner.keys.token(APP_ID);
    const [field = ''] = await corner.redis.hkeys(key);
    for (const damaged of ['', '{', '{}', '{"until":"x"}']) {
      await corner.redis.hset(key, field, damaged);
      await tokenOf(source());
    }
  });

  test('of a kind that only a newer version knows is unclassified', async () => {
    simulator.arm({ endpoint: 'token', times: 1, action: { type: 'errcode', errcode: 40164 } });
    await source().current(testAccount(), never);
    const key = corner.keys.token(APP_ID);
    const [[field, text] = ['', '']] = Object.entries(await corner.redis.hgetall(key));
    await corner.redis.hset(key, field, text.replace('ip-not-allowed', 'constructor'));
    expect(await source().current(testAccount(), never)).toMatchObject({
      ok: false,
      failure: { code: 'unclassified', errcode: 40164 },
    });
  });
});

describe('early renewal', () => {
  test('is made by one process, and nobody waits for it', async () => {
    const [first, second] = [source(), source()];
    const { token } = await tokenOf(first);
    await tokenOf(second);
    advance(2 * HOUR - MINUTE);
    // Somebody is at it: whoever else asks goes on with the token that still holds.
    await corner.redis.set(corner.keys.tokenLease(APP_ID), 'another process', 'PX', 60_000);
    expect((await tokenOf(first)).token).toBe(token);
    expect(calls()).toBe(1);
    await corner.redis.del(corner.keys.tokenLease(APP_ID));
    const next = await tokenOf(second);
    expect(next.token).not.toBe(token);
    advance(20 * SECOND);
    expect((await tokenOf(first)).token).toBe(next.token);
    expect(calls()).toBe(2);
  });

  test('that fails leaves the token in use until its end', async () => {
    const from = source();
    const { token } = await tokenOf(from);
    advance(2 * HOUR - MINUTE);
    simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: 40164 } });
    expect((await tokenOf(from)).token).toBe(token);
    advance(MINUTE);
    expect(await from.current(testAccount(), never)).toMatchObject({ ok: false, failure: { code: 'ip-not-allowed' } });
  });

  test.each([300, 30, 2])('is right for tokens that live %i s', async (life) => {
    simulator.setTokenLife(APP_ID, life * SECOND);
    const from = source();
    const seen = new Set<string>();
    for (let elapsed = 0; elapsed < life * 3; elapsed += life / 10) {
      const { token } = await tokenOf(from);
      seen.add(token);
      // WeChat takes it at every moment.
      const { mediaId } = simulator.addMedia({ appId: APP_ID, format: 'jpeg' });
      const url = `${simulator.url}/cgi-bin/media/get?access_token=${token}&media_id=${mediaId}`;
      expect((await fetch(url)).headers.get('content-type')).toBe('image/jpeg');
      advance((life / 10) * SECOND);
    }
    expect(calls()).toBeLessThanOrEqual(8);
    expect(seen.size).toBeGreaterThanOrEqual(3);
  });
});

describe('a holder of the lease that died', () => {
  test('is waited out', async () => {
    await corner.redis.set(corner.keys.tokenLease(APP_ID), 'a dead process', 'PX', 700);
    await tokenOf(source());
    expect(calls()).toBe(1);
  });

  test('is not waited for longer than a lease can last', async () => {
    await corner.redis.set(corner.keys.tokenLease(APP_ID), 'a dead process');
    let answer: Awaited<ReturnType<TokenSource['current']>> | undefined;
    const asking = source()
      .current(testAccount(), never)
      .then((issued) => {
        answer = issued;
      });
    await eventually(() => {
      advance(5 * SECOND);
      return answer;
    });
    await asking;
    expect(answer).toMatchObject({ ok: false, failure: { code: 'token-unavailable' } });
    expect(calls()).toBe(0);
  });

  test('does not stop a job that is told to stop', async () => {
    await corner.redis.set(corner.keys.tokenLease(APP_ID), 'a dead process');
    const stop = new AbortController();
    const asking = source().current(testAccount(), stop.signal);
    stop.abort(new Error('stopped'));
    await expect(asking).rejects.toThrow('stopped');
  });
});

test('a late answer of a process that lost its lease does not overwrite the newer token', async () => {
  const slow = source();
  simulator.arm({ endpoint: 'token', times: 1, action: { type: 'errcode', errcode: -1 } });
  const late = slow.current(testAccount(), never);
  await eventually(() => (calls() === 1 ? true : undefined));
  // Its lease is gone to another process, which gets the token first.
  await corner.redis.del(corner.keys.tokenLease(APP_ID));
  const { token } = await tokenOf(source());
  // The slow one tries again within its call, and finds that it may not write.
  expect(await late).toMatchObject({ ok: false, failure: { code: 'token-unavailable' } });
  expect((await tokenOf(source())).token).toBe(token);
});

describe('a token endpoint that refuses', () => {
  test.each([
    [40001, 'app-secret-invalid'],
    [40125, 'app-secret-invalid'],
    [40013, 'app-id-invalid'],
    [40164, 'ip-not-allowed'],
    [45009, 'token-quota-exhausted'],
  ])('with %i is %s', async (errcode, code) => {
    const errmsg = `invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist, secret ${APP_SECRET}`;
    simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode, errmsg } });
    const issued = await source().current(testAccount(), never);
    expect(issued).toMatchObject({ ok: false, failure: { code, errcode } });
    expect(JSON.stringify(issued)).not.toContain(APP_SECRET);
    expect(calls()).toBe(1);
  });

  test('with -1 is asked again within the call', async () => {
    simulator.arm({ endpoint: 'token', times: 2, action: { type: 'errcode', errcode: -1 } });
    await tokenOf(source());
    expect(calls()).toBe(3);
  });

  test.each<[string, Parameters<WeixinSimulator['arm']>[0]['action'], string]>([
    ['a page', { type: 'html', status: 502 }, 'weixin-bad-gateway'],
    ['an empty object', { type: 'text', body: '{}' }, 'weixin-unexpected-reply'],
    ['an empty token', { type: 'text', body: '{"access_token":"","expires_in":7200}' }, 'weixin-unexpected-reply'],
    ['a life of nothing', { type: 'text', body: '{"access_token":"x","expires_in":0}' }, 'weixin-unexpected-reply'],
    [
      'an endless token',
      { type: 'text', body: `{"access_token":"${'x'.repeat(5_000)}","expires_in":7200}` },
      'weixin-unexpected-reply',
    ],
    ['resets', { type: 'reset' }, 'weixin-unreachable'],
  ])('with %s gives no token', async (_name, action, code) => {
    simulator.arm({ endpoint: 'token', action });
    expect(await source().current(testAccount(), never)).toMatchObject({ ok: false, failure: { code } });
  });
});

describe('in Redis', () => {
  test('the token can not be read by who lacks the secret', async () => {
    const { token } = await tokenOf(source());
    const fields = await corner.redis.hgetall(corner.keys.token(APP_ID));
    expect(JSON.stringify(fields)).not.toContain(token);
    const { sealed = '' } = fields;
    expect(unsealToken(sealed, new Secret(APP_SECRET), APP_ID)?.reveal()).toBe(token);
    expect(unsealToken(sealed, new Secret('another secret'), APP_ID)).toBeUndefined();
    expect(unsealToken(sealed, new Secret(APP_SECRET), 'wx0000000000000000')).toBeUndefined();
  });

  test('a token of endless life lives for a day', async () => {
    const body = '{"access_token":"the-token","expires_in":1e400}';
    simulator.arm({ endpoint: 'token', action: { type: 'text', body } });
    await tokenOf(source());
    await tokenOf(source());
    expect(calls()).toBe(1);
    advance(24 * HOUR);
    await tokenOf(source());
    expect(calls()).toBe(2);
  });

  test.each(['', 'x', 'AAAA', Buffer.alloc(200).toString('base64')])(
    'a damaged token (%j) counts as none',
    async (sealed) => {
      await tokenOf(source());
      await corner.redis.hset(corner.keys.token(APP_ID), 'sealed', sealed);
      await tokenOf(source());
      expect(calls()).toBe(2);
    },
  );

  test('a token that was sealed with an older secret is asked for anew', async () => {
    await tokenOf(source());
    simulator.addApp({ appId: APP_ID, secret: 'the new secret' });
    const account: Account = {
      appId: APP_ID,
      credential: { type: 'stable_token', secret: new Secret('the new secret') },
    };
    expect((await source().current(account, never)).ok).toBe(true);
  });

  test('the record goes when it is of no use any more', async () => {
    await tokenOf(source());
    expect(await corner.redis.pttl(corner.keys.token(APP_ID))).toBeGreaterThan(2 * HOUR);
  });
});

test('the same token is sealed differently each time', () => {
  const [token, secret] = [new Secret('t'), new Secret('s')];
  expect(sealToken(token, secret, APP_ID)).not.toBe(sealToken(token, secret, APP_ID));
});
