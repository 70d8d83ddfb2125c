import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../../src/demo/redis-server.ts';
import {
  type SimulatedTokenService,
  startTokenService,
  type TokenServiceFault,
} from '../../../src/demo/weixin/token-service.ts';
import { FAILURES } from '../../../src/failure.ts';
import { Secret } from '../../../src/secret.ts';
import { HOUR, MINUTE, SECOND } from '../../../src/time.ts';
import type { TokenService } from '../../../src/weixin/credentials/account.ts';
import type { TokenSource } from '../../../src/weixin/credentials/issued-token.ts';
import { type CredentialBench, openCredentialBench } from '../../support/credentials.ts';
import { eventually } from '../../support/eventually.ts';
import { APP_ID } from '../../support/jobs.ts';
import { askToken } from '../../support/weixin.ts';

const PASSWORD = 'Bearer the-password-of-the-service';
const never = new AbortController().signal;

let bench: CredentialBench;
let service: SimulatedTokenService;

beforeEach(async () => {
  bench = await openCredentialBench();
  service = await startTokenService({
    password: PASSWORD,
    fetchToken: async () => (await askToken(bench.simulator.url)).access_token,
  });
  ask();
});

afterEach(async () => {
  await service.close();
  await bench[Symbol.asyncDispose]();
});

/** Has the app ask the service, in this way. */
function ask(fields: Partial<TokenService> = {}): void {
  const source = {
    url: new URL(service.url),
    headers: { authorization: new Secret(PASSWORD) },
    path: ['data', 'access_token'],
    ...fields,
  };
  bench.use({ [APP_ID]: { type: 'external', source } });
}

/** As before, and the service wants to be told of rejections. */
function askAndTell(): void {
  ask({ invalidate: { url: new URL(service.invalidateUrl), method: 'POST' } });
}

async function generationOf(tokens: TokenSource): Promise<string> {
  const issued = await tokens.current(bench.account(), never);
  if (!issued.ok) throw new Error(issued.failure.code);
  return issued.value.generation;
}

const addJpeg = (): string => bench.simulator.addMedia({ appId: APP_ID, format: 'jpeg' }).mediaId;
/** What WeChat's token endpoints were asked, all of it by the service. */
const callsOfWeixin = (): number => bench.simulator.counts.tokens.get(APP_ID) ?? 0;

describe('a token service', () => {
  test('gives the token with which media come', async () => {
    expect(await bench.fetch({ mediaId: addJpeg() })).toMatchObject({ declaredType: 'image/jpeg' });
    expect(service.counts).toEqual({ asked: 1, told: 0, refused: 0 });
    expect(bench.refreshes).toEqual([{ appId: APP_ID, kind: 'external', forced: false, result: 'issued' }]);
  });

  test('is asked once for 300 jobs of a process, and again after a minute', async () => {
    const tokens = bench.tokens();
    const generations = await Promise.all(Array.from({ length: 300 }, () => generationOf(tokens)));
    expect(new Set(generations)).toEqual(new Set([expect.stringMatching(/^[0-9a-f]{16}$/)]));
    expect(service.counts.asked).toBe(1);
    bench.advance(59 * SECOND);
    await generationOf(tokens);
    expect(service.counts.asked).toBe(1);
    bench.advance(SECOND);
    await generationOf(tokens);
    expect(service.counts.asked).toBe(2);
    // The same token is no news.
    expect(bench.refreshes).toHaveLength(1);
  });

  test('is asked again when the clock was set back', async () => {
    const tokens = bench.tokens();
    await generationOf(tokens);
    bench.clock.advance(-HOUR);
    await generationOf(tokens);
    expect(service.counts.asked).toBe(2);
  });

  test.each([
    ['a long life', 7_200, 59, 1],
    ['a short one', 30, 25, 2],
    ['one that is over', -5, 59, 1],
  ])('that tells %s is asked again in time', async (_what, expiresIn, seconds, asked) => {
    service.expiresIn = expiresIn;
    const tokens = bench.tokens();
    await generationOf(tokens);
    bench.advance(seconds * SECOND);
    await generationOf(tokens);
    expect(service.counts.asked).toBe(asked);
  });

  test('that has a newer token is believed within a minute, without a rejection', async () => {
    const tokens = bench.tokens();
    const before = await generationOf(tokens);
    bench.simulator.rotateToken(APP_ID);
    bench.advance(MINUTE);
    expect(await generationOf(tokens)).not.toBe(before);
    expect(bench.refreshes.map(({ result }) => result)).toEqual(['issued', 'issued']);
  });

  const FAULTS: readonly (readonly [string, TokenServiceFault, object])[] = [
    ['answers 500', { status: 500 }, { httpStatus: 500 }],
    ['answers 404', { status: 404 }, { httpStatus: 404 }],
    ['leads elsewhere', { redirect: 'http://127.0.0.1:9/' }, { httpStatus: 302 }],
    ['answers with words', { body: 'not today' }, { detail: 'its answer is no JSON object' }],
    ['answers with a list', { body: '["x"]' }, { detail: 'its answer is no JSON object' }],
    ['has the token elsewhere', { body: '{"access_token":"x"}' }, { detail: 'no token at data.access_token' }],
    ['has no object there', { body: '{"data":"access_token"}' }, { detail: 'no token at data.access_token' }],
    ['has a number there', { body: '{"data":{"access_token":7}}' }, { detail: 'no token at data.access_token' }],
    ['has an empty one', { body: '{"data":{"access_token":""}}' }, { detail: 'no token at data.access_token' }],
    ['has two words there', { body: '{"data":{"access_token":"a b"}}' }, { detail: 'no token at data.access_token' }],
    [
      'has one that no query holds',
      { body: `{"data":{"access_token":"${'x'.repeat(4_097)}"}}` },
      { detail: 'no token at data.access_token' },
    ],
    [
      'answers without end',
      { body: `{"data":"${'x'.repeat(70_000)}"}` },
      { detail: 'an answer of more than 65536 bytes' },
    ],
  ];

  test.each(FAULTS)('that %s has failed, and its answer is not repeated', async (_what, fault, expected) => {
    service.fault = fault;
    expect(await bench.fetch({ mediaId: addJpeg() })).toEqual({ code: 'token-service-failed', ...expected });
    expect(bench.refreshes).toMatchObject([{ kind: 'external', result: 'failed', failure: expected }]);
  });

  test('that refuses the password has failed, and the password is in no failure', async () => {
    ask({ headers: { authorization: new Secret('Bearer a-wrong-password') } });
    const failed = await bench.fetch({ mediaId: addJpeg() });
    expect(failed).toEqual({ code: 'token-service-failed', httpStatus: 401 });
    expect(JSON.stringify([failed, bench.refreshes])).not.toContain('wrong-password');
  });

  test('that is away has failed by the name of the error, without its address', async () => {
    ask({ url: new URL(`http://127.0.0.1:${await freePort()}/of-a-name?of=a-value`) });
    const failed = await bench.fetch({ mediaId: addJpeg() });
    expect(failed).toEqual({ code: 'token-service-failed', detail: 'ECONNREFUSED' });
  });

  test('that says nothing has failed after seconds, and a job that is stopped does not wait for it', async () => {
    service.fault = 'silent';
    const tokens = bench.tokens();
    const stop = new AbortController();
    const stopped = tokens.current(bench.account(), stop.signal);
    const waiting = tokens.current(bench.account(), never);
    await eventually(() => (service.counts.asked > 0 ? true : undefined));
    const reason = new Error('stopped');
    stop.abort(reason);
    await expect(stopped).rejects.toBe(reason);
    expect(await waiting).toEqual({ ok: false, failure: { code: 'token-service-failed', detail: 'TimeoutError' } });
    expect(service.counts.asked).toBe(1);
  });

  test('that fails is left alone for a pause, which doubles, and a success ends it', async () => {
    service.fault = { status: 500 };
    const tokens = bench.tokens();
    const askedAt: number[] = [];
    for (let second = 0; second < 60; second += 1) {
      const before = service.counts.asked;
      await Promise.all(Array.from({ length: 5 }, () => tokens.current(bench.account(), never)));
      if (service.counts.asked > before) askedAt.push(second);
      bench.advance(SECOND);
    }
    // Half the pause, since chance is 0 here: 2.5, 5, 10 and 10 seconds.
    expect(askedAt).toEqual([0, 3, 8, 18, 28, 38, 48, 58]);
    service.fault = undefined;
    bench.advance(10 * SECOND);
    expect(await generationOf(tokens)).toMatch(/./);
  });

  test('that fails does not take the token away that is held', async () => {
    const tokens = bench.tokens();
    const before = await generationOf(tokens);
    service.fault = { status: 503 };
    bench.advance(5 * MINUTE);
    expect(await generationOf(tokens)).toBe(before);
    expect(await bench.fetch({ mediaId: addJpeg() }, tokens)).toHaveProperty('bytes');
    expect(bench.refreshes.map(({ result }) => result)).toEqual(['issued', 'failed']);
  });

  test('that fails when the token that it told the life of is over has failed', async () => {
    service.expiresIn = 100;
    const tokens = bench.tokens();
    await generationOf(tokens);
    service.fault = { status: 503 };
    bench.advance(100 * SECOND);
    expect(await tokens.current(bench.account(), never)).toMatchObject({ failure: { code: 'token-service-failed' } });
  });
});

describe('a token that WeChat rejects', () => {
  test('is asked for again at once: the service has renewed it', async () => {
    const tokens = bench.tokens();
    await generationOf(tokens);
    bench.simulator.rotateToken(APP_ID);
    expect(await bench.fetch({ mediaId: addJpeg() }, tokens)).toHaveProperty('bytes');
    expect(service.counts.asked).toBe(2);
    expect(bench.simulator.counts.errors.get(40001)).toBe(1);
  });

  test('although the service still gives it out closes the gate, in the words of WeChat', async () => {
    const tokens = bench.tokens();
    await generationOf(tokens);
    service.fault = 'stale';
    bench.simulator.rotateToken(APP_ID);
    const failed = await bench.fetch({ mediaId: addJpeg() }, tokens);
    expect(failed).toMatchObject({ code: 'external-token-stale', errcode: 40001, errmsg: expect.any(String) });
    expect(FAILURES['external-token-stale'].action).toBe('wait');
    expect(service.counts.told).toBe(0);
    // The probe of the gate, a minute later, meets a service that has renewed it.
    service.fault = undefined;
    bench.advance(MINUTE);
    expect(await bench.fetch({ mediaId: addJpeg() }, tokens)).toHaveProperty('bytes');
  });

  test('now and then, and is good otherwise, costs a second try and no renewal', async () => {
    askAndTell();
    const tokens = bench.tokens();
    for (let count = 0; count < 3; count += 1) {
      const mediaId = addJpeg();
      bench.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40001 }, times: 1 });
      expect(await bench.fetch({ mediaId }, tokens)).toHaveProperty('bytes');
      bench.advance(2 * MINUTE);
    }
    expect(service.counts.told).toBe(0);
  });

  test('is told to a service that wants to hear it, once, and what it then gives out is used', async () => {
    askAndTell();
    const tokens = bench.tokens();
    await generationOf(tokens);
    service.fault = 'stale';
    bench.simulator.rotateToken(APP_ID);
    expect(await bench.fetch({ mediaId: addJpeg() }, tokens)).toHaveProperty('bytes');
    expect(service.counts.told).toBe(1);
  });

  test('by 500 jobs of three processes is told once, and asked for a few times', async () => {
    askAndTell();
    const sources = [bench.tokens(), bench.tokens(), bench.tokens()];
    const [generation = ''] = await Promise.all(sources.map(generationOf));
    service.fault = 'deaf';
    bench.simulator.rotateToken(APP_ID);
    const before = { asked: service.counts.asked, weixin: callsOfWeixin() };
    for (let round = 0; round < 3; round += 1) {
      const rejecting = Array.from({ length: 500 }, (_, index) =>
        (sources[index % 3] as TokenSource).reject(bench.account(), generation, never),
      );
      for (const refused of await Promise.all(rejecting)) expect(refused).toEqual({ code: 'external-token-stale' });
    }
    expect(service.counts.told).toBe(1);
    // Of each process one, and of the one that has told it another.
    expect(service.counts.asked - before.asked).toBe(4);
    expect(callsOfWeixin()).toBe(before.weixin);
  });

  test('and the next one too is told, but not within a minute', async () => {
    askAndTell();
    const tokens = bench.tokens();
    const rejectTwice = async (): Promise<void> => {
      const generation = await generationOf(tokens);
      for (let count = 0; count < 2; count += 1) await tokens.reject(bench.account(), generation, never);
    };
    service.fault = 'stale';
    await rejectTwice();
    expect(service.counts.told).toBe(1);
    bench.simulator.rotateToken(APP_ID);
    bench.advance(MINUTE);
    await generationOf(tokens);
    service.fault = 'stale';
    await rejectTwice();
    expect(service.counts.told).toBe(1);
    await expect(bench.corner.redis.pttl(bench.corner.keys.tokenRejections(APP_ID))).resolves.toBeLessThanOrEqual(
      MINUTE,
    );
    // As if that minute were over.
    await bench.corner.redis.del(bench.corner.keys.tokenRejections(APP_ID));
    await tokens.reject(bench.account(), await generationOf(tokens), never);
    expect(service.counts.told).toBe(2);
  });

  test('is told anew when the service still gives out the same ten minutes later', async () => {
    askAndTell();
    const tokens = bench.tokens();
    const generation = await generationOf(tokens);
    service.fault = 'deaf';
    for (let count = 0; count < 3; count += 1) await tokens.reject(bench.account(), generation, never);
    expect(service.counts.told).toBe(1);
    const { redis, keys } = bench.corner;
    const said = keys.tokenRejected(APP_ID, generation);
    const leftMs = await redis.pttl(said);
    expect(leftMs).toBeGreaterThan(9 * MINUTE);
    expect(leftMs).toBeLessThanOrEqual(10 * MINUTE);
    // As if they were over.
    await redis.del(said, keys.tokenRejections(APP_ID));
    await tokens.reject(bench.account(), generation, never);
    expect(service.counts.told).toBe(2);
  });

  test('which the service does not hear of is told again after the pause', async () => {
    askAndTell();
    const tokens = bench.tokens();
    const generation = await generationOf(tokens);
    service.fault = 'stale';
    await tokens.reject(bench.account(), generation, never);
    service.fault = { status: 500 };
    const told = (): Promise<unknown> => tokens.reject(bench.account(), generation, never);
    expect(await told()).toEqual({ code: 'external-token-stale' });
    expect(service.counts.told).toBe(1);
    expect(bench.refreshes.at(-1)).toMatchObject({
      result: 'failed',
      failure: { httpStatus: 500, detail: 'invalidate' },
    });
    await bench.corner.redis.del(bench.corner.keys.tokenRejections(APP_ID));
    await told();
    expect(service.counts.told).toBe(2);
  });

  test('while the service is away is a failure of the service', async () => {
    const tokens = bench.tokens();
    const generation = await generationOf(tokens);
    service.fault = { status: 503 };
    const refused = await tokens.reject(bench.account(), generation, never);
    expect(refused).toEqual({ code: 'token-service-failed', httpStatus: 503 });
  });

  test('late, about one that has been replaced, costs nothing', async () => {
    const tokens = bench.tokens();
    const old = await generationOf(tokens);
    bench.simulator.rotateToken(APP_ID);
    bench.advance(MINUTE);
    await generationOf(tokens);
    const { asked } = service.counts;
    expect(await tokens.reject(bench.account(), old, never)).toBeUndefined();
    expect(service.counts.asked).toBe(asked);
  });
});

describe('a token in Redis', () => {
  const redisKey = (): string => `${bench.corner.prefix}:of-others`;
  const lies = async (text: string, path?: readonly string[]): Promise<void> => {
    await bench.corner.redis.set(redisKey(), text);
    bench.use({
      [APP_ID]: { type: 'external', source: { redisKey: redisKey(), ...(path === undefined ? {} : { path }) } },
    });
  };
  const goodToken = async (): Promise<string> => (await askToken(bench.simulator.url)).access_token;

  test.each([
    ['as it is', undefined, (token: string) => token],
    ['with a line end', undefined, (token: string) => `${token}\n`],
    ['in JSON', ['a', 'b'], (token: string) => JSON.stringify({ a: { b: token, expires_in: 7_200 } })],
  ])('is read %s', async (_what, path, written) => {
    await lies(written(await goodToken()), path);
    expect(await bench.fetch({ mediaId: addJpeg() })).toHaveProperty('bytes');
  });

  test('is read again at once when it was rejected', async () => {
    await lies('a-token-of-yesterday');
    const tokens = bench.tokens();
    const generation = await generationOf(tokens);
    await lies(await goodToken());
    expect(await tokens.reject(bench.account(), generation, never)).toBeUndefined();
    expect(await generationOf(tokens)).not.toBe(generation);
  });

  test.each([
    ['nothing', '', 'nothing lies at redisKey'],
    ['what is no token', 's:3:"a b"', 'what lies at redisKey is no token'],
    ['far too much', 'x'.repeat(100_000), 'what lies at redisKey is no token'],
  ])('where %s lies has failed', async (_what, text, detail) => {
    await lies(text);
    expect(await bench.fetch({ mediaId: addJpeg() })).toEqual({ code: 'token-service-failed', detail });
  });

  test('is not looked for in more than an answer may have', async () => {
    await lies(JSON.stringify({ a: await goodToken(), more: 'x'.repeat(70_000) }), ['a']);
    expect(await bench.fetch({ mediaId: addJpeg() })).toMatchObject({ code: 'token-service-failed' });
  });

  test('where something else lies has failed by what Redis calls it', async () => {
    await lies('x');
    await bench.corner.redis.del(redisKey());
    await bench.corner.redis.lpush(redisKey(), 'x');
    const failed = await bench.fetch({ mediaId: addJpeg() });
    expect(failed).toEqual({ code: 'token-service-failed', detail: 'WRONGTYPE' });
  });
});

test('neither token nor password of a service lies in Redis', async () => {
  askAndTell();
  const tokens = bench.tokens();
  const issued = await tokens.current(bench.account(), never);
  if (!issued.ok) throw new Error(issued.failure.code);
  service.fault = 'deaf';
  for (let count = 0; count < 2; count += 1) await tokens.reject(bench.account(), issued.value.generation, never);
  const { redis, keys } = bench.corner;
  const written = [keys.tokenRejected(APP_ID, issued.value.generation), keys.tokenRejections(APP_ID)];
  expect(await redis.mget(...written)).toEqual(['1', '1']);
  expect(written.join()).not.toContain(issued.value.token.reveal());
  expect(await redis.exists(keys.token(APP_ID), keys.tokenLease(APP_ID))).toBe(0);
});
