import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { startWeixinSimulator, type WeixinSimulator } from '../../../src/demo/weixin/weixin-simulator.ts';
import type { RedisClient } from '../../../src/redis/connect.ts';
import { Secret } from '../../../src/secret.ts';
import { HOUR, MINUTE, SECOND } from '../../../src/time.ts';
import { createApiHosts } from '../../../src/weixin/api-hosts.ts';
import type { Account, Component } from '../../../src/weixin/credentials/account.ts';
import { createAccountBook } from '../../../src/weixin/credentials/account-book.ts';
import { createAuthorizations } from '../../../src/weixin/credentials/authorizations.ts';
import { type ComponentEvents, createComponentEvents } from '../../../src/weixin/credentials/component-events.ts';
import { createComponentTickets } from '../../../src/weixin/credentials/component-tickets.ts';
import type { TokenRefresh } from '../../../src/weixin/credentials/issued-token.ts';
import { createTokenSource, type TokenSources } from '../../../src/weixin/credentials/token-source.ts';
import { createHttpPool, type HttpPool } from '../../../src/weixin/http.ts';
import { type TestClock, testClock } from '../../support/clock.ts';
import { APP_ID, OTHER_APP_ID } from '../../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../../support/redis.ts';
import { dumpRedis } from '../../support/stack.ts';
import { TEST_TIMEOUTS } from '../../support/weixin.ts';

const never = new AbortController().signal;
const SECRET = 'the-secret-of-the-platform';
const push = { token: new Secret('t'), encodingAesKey: new Secret('k'.repeat(43)), mustBeEncrypted: true };
const component: Component = { appId: 'wxcccccccccccccccc', secret: new Secret(SECRET), push };
const OWN: Account = {
  appId: 'wxeeeeeeeeeeeeeeee',
  credential: { type: 'stable_token', secret: new Secret('s') },
};
const account: Account = { appId: APP_ID, credential: { type: 'authorizer', component } };

let corner: TestRedis;
let simulator: WeixinSimulator;
let http: HttpPool;
let clock: TestClock;
let refreshes: TokenRefresh[];
let told: string[];
let events: ComponentEvents;

beforeEach(async () => {
  corner = await openTestRedis();
  simulator = await startWeixinSimulator();
  simulator.platforms.addPlatform({ appId: component.appId, secret: SECRET });
  for (const appId of [APP_ID, OTHER_APP_ID]) simulator.addApp({ appId, secret: 'unknown to the platform' });
  http = createHttpPool(TEST_TIMEOUTS, 8);
  clock = testClock(Date.now());
  refreshes = [];
  told = [];
  const tell = (what: string) => async (_component: Component, appId?: string) =>
    void told.push(`${what} ${appId ?? ''}`.trim());
  events = createComponentEvents({
    redis: corner.redis,
    keys: corner.keys,
    components: [component],
    tickets: createComponentTickets(corner.redis, corner.keys, clock.now),
    authorizations: createAuthorizations(corner.redis, corner.keys),
    accounts: { find: (appId) => (appId === OWN.appId ? OWN : undefined), refresh: async () => [] },
    onTicket: tell('ticket'),
    onAuthorized: tell('authorized'),
    onWithdrawn: tell('withdrawn'),
  });
});

afterEach(async () => {
  await http.close();
  await simulator.close();
  await corner[Symbol.asyncDispose]();
});

/** The tokens as another process would have them. */
function source(faults: (redis: RedisClient) => object = () => ({})): TokenSources {
  const hosts = createApiHosts([new URL(simulator.url)], clock.now);
  const onRefresh = (refresh: TokenRefresh): void => void refreshes.push(refresh);
  const { keys } = corner;
  const endpoint = { hosts, http };
  const connected = corner.connect();
  const own = faults(connected);
  const redis = new Proxy(connected, {
    get: (target, name) => Reflect.get(name in own ? own : target, name) as unknown,
  });
  return createTokenSource({ redis, keys, endpoint, now: clock.now, random: () => 0.5, onRefresh });
}

function advance(ms: number): void {
  clock.advance(ms);
  simulator.advance(ms);
}

const calls = (name: string): number => simulator.platforms.counts.get(name) ?? 0;
const ticketCame = (): Promise<void> =>
  events.ticket(component.appId, simulator.platforms.newTicket(component.appId), clock.now());
const authorized = (appId = APP_ID): Promise<void> =>
  events.authorized(component.appId, appId, simulator.platforms.authorize(component.appId, appId), clock.now());

/** The code of the failure to have a token. */
async function failureFor(from: TokenSources, of: Account = account): Promise<string> {
  const issued = await from.current(of, never);
  return issued.ok ? 'none' : issued.failure.code;
}

/** The token, which media/get must take. */
async function tokenFor(from: TokenSources, of: Account = account): Promise<string> {
  const issued = await from.current(of, never);
  if (!issued.ok) throw new Error(issued.failure.code);
  const token = issued.value.token.reveal();
  expect(simulator.platforms.judge(token)).toEqual({ appId: of.appId });
  return token;
}

describe('a platform', () => {
  test('goes from ticket and authorisation to a token of the account, in three calls', async () => {
    await ticketCame();
    await authorized();
    expect(told).toEqual(['ticket', `authorized ${APP_ID}`]);
    const from = source();
    const token = await tokenFor(from);
    expect(await tokenFor(from)).toBe(token);
    expect(await tokenFor(source())).toBe(token);
    expect(Object.fromEntries(simulator.platforms.counts)).toEqual({ api_component_token: 1, api_query_auth: 1 });
    expect(refreshes.map(({ kind, appId, result }) => [kind, appId, result])).toEqual([
      ['component', component.appId, 'issued'],
      ['authorizer', APP_ID, 'issued'],
    ]);
  });

  test.each([true, false])('lives on for days, its refresh tokens rotating: %s', async (rotates) => {
    simulator.platforms.rotates = rotates;
    await ticketCame();
    await authorized();
    const seen = new Set<string>();
    for (let round = 0; round < 15; round += 1) {
      seen.add(await tokenFor(source()));
      advance(2 * HOUR);
      if (round % 5 === 0) await ticketCame();
    }
    expect(seen.size).toBe(15);
    expect(calls('api_authorizer_token')).toBe(14);
    expect(calls('api_get_authorizer_list')).toBe(0);
  });

  test('asks once at each level, however many jobs of however many processes need a token', async () => {
    await ticketCame();
    await authorized();
    await authorized(OTHER_APP_ID);
    const processes = [source(), source(), source()];
    const other: Account = { appId: OTHER_APP_ID, credential: { type: 'authorizer', component } };
    const ask = (of: Account): Promise<string[]> =>
      Promise.all(Array.from({ length: 90 }, (_, index) => tokenFor(processes[index % 3] as TokenSources, of)));
    const [one, two] = await Promise.all([ask(account), ask(other)]);
    expect(new Set(one).size).toBe(1);
    expect(new Set(two).size).toBe(1);
    expect(Object.fromEntries(simulator.platforms.counts)).toEqual({ api_component_token: 1, api_query_auth: 2 });
  });

  test('replaces a token of its own that WeChat rejects, once for all', async () => {
    await ticketCame();
    await authorized();
    await tokenFor(source());
    simulator.platforms.rotatePlatform(component.appId);
    advance(3 * HOUR);
    simulator.platforms.rotatePlatform(component.appId);
    const processes = [source(), source()];
    await Promise.all(processes.map((from) => tokenFor(from)));
    expect(calls('api_component_token')).toBe(2);

    simulator.platforms.rotatePlatform(component.appId);
    simulator.platforms.rotate(component.appId, APP_ID);
    const [from] = processes as [TokenSources];
    const issued = await from.current(account, never);
    if (!issued.ok) throw new Error(issued.failure.code);
    advance(10 * SECOND);
    expect(await from.reject(account, issued.value.generation, never)).toBeUndefined();
    await tokenFor(from);
    expect(calls('api_component_token')).toBe(3);
  });

  test('keeps no secret in the clear', async () => {
    await ticketCame();
    await authorized();
    await authorized(OTHER_APP_ID);
    await tokenFor(source());
    const dump = await dumpRedis(corner.redis, `${corner.prefix}*`);
    expect(dump).toContain(OTHER_APP_ID);
    for (const secret of [...simulator.platforms.issued, SECRET]) expect(dump).not.toContain(secret);
  });
});

describe('without a ticket', () => {
  test('has WeChat asked once to push one, and the first that comes is used at once', async () => {
    await authorized();
    const from = source();
    expect(await failureFor(from)).toBe('component-ticket-missing');
    expect(await failureFor(source())).toBe('component-ticket-missing');
    advance(3 * MINUTE);
    expect(await failureFor(from)).toBe('component-ticket-missing');
    expect(simulator.platforms.ticketsAskedFor(component.appId)).toBe(1);
    expect(calls('api_component_token')).toBe(0);

    await ticketCame();
    expect(told).toContain('ticket');
    await tokenFor(from);
    await tokenFor(source());
  });

  test('a failed wish for one is made again soon', async () => {
    await authorized();
    simulator.arm({
      endpoint: 'component',
      call: 'api_start_push_ticket',
      action: { type: 'html', status: 502 },
      times: 1,
    });
    expect(await failureFor(source())).toBe('weixin-bad-gateway');
    expect(await corner.redis.pttl(corner.keys.ticketRestart(component.appId))).toBeLessThanOrEqual(30 * SECOND);
    await corner.redis.del(corner.keys.ticketRestart(component.appId));
    advance(MINUTE);
    expect(await failureFor(source())).toBe('component-ticket-missing');
    expect(await corner.redis.pttl(corner.keys.ticketRestart(component.appId))).toBeGreaterThan(9 * MINUTE);
  });

  test('one that WeChat no longer takes is replaced by the next', async () => {
    await ticketCame();
    simulator.platforms.dropTickets(component.appId);
    await authorized();
    expect(await failureFor(source())).toBe('component-ticket-missing');
    expect(simulator.platforms.ticketsAskedFor(component.appId)).toBe(1);
    await ticketCame();
    await tokenFor(source());
  });

  test('many who ask have WeChat asked for the token of the platform once a pause', async () => {
    await ticketCame();
    simulator.platforms.dropTickets(component.appId);
    await authorized();
    for (let asked = 0; asked < 5; asked += 1) expect(await failureFor(source())).toBe('component-ticket-missing');
    expect(calls('api_component_token')).toBe(1);
    expect(calls('api_query_auth')).toBe(0);
  });

  test('an older one does not replace a newer one, and one of yesterday is none', async () => {
    const older = simulator.platforms.newTicket(component.appId);
    await ticketCame();
    await events.ticket(component.appId, older, clock.now() - MINUTE);
    const tickets = createComponentTickets(corner.redis, corner.keys, clock.now);
    expect((await tickets.read(component))?.reveal()).not.toBe(older);
    await corner.redis.del(corner.keys.componentTicket(component.appId));
    await events.ticket(component.appId, older, clock.now() - 12 * HOUR);
    expect(await tickets.read(component)).toBeUndefined();
  });

  test('a wrong secret of the platform is said as such', async () => {
    await ticketCame();
    await authorized();
    const wrong: Component = { ...component, secret: new Secret('another') };
    const of: Account = { appId: APP_ID, credential: { type: 'authorizer', component: wrong } };
    const tickets = createComponentTickets(corner.redis, corner.keys, clock.now);
    await corner.redis.del(corner.keys.componentTicket(component.appId));
    await tickets.keep(wrong, new Secret(simulator.platforms.newTicket(component.appId)), clock.now());
    expect(await failureFor(source(), of)).toBe('component-misconfigured');
  });
});

describe('a refresh token', () => {
  beforeEach(async () => {
    await ticketCame();
    await authorized();
    await tokenFor(source());
    advance(2 * HOUR);
  });

  test('that was lost with the answer that brought it is looked up once', async () => {
    const lost = { type: 'lost-answer' } as const;
    simulator.arm({ endpoint: 'component', call: 'api_authorizer_token', action: lost, times: 1 });
    const from = source();
    await tokenFor(from);
    expect(calls('api_get_authorizer_list')).toBe(1);
    advance(2 * HOUR);
    await tokenFor(source());
    expect(calls('api_get_authorizer_list')).toBe(1);
  });

  test.each([
    { times: 2, code: 'none' },
    { times: 99, code: 'authorization-withdrawn' },
  ])(
    'that is replaced between the list and its use, $times times, is looked up again, and not for ever',
    async ({ times, code }) => {
      let left = times;
      simulator.platforms.rotate(component.appId, APP_ID);
      const from = source((redis) => ({
        // The last thing that is done with a list.
        del: async (key: string) => {
          if (key === corner.keys.listOffset(APP_ID) && left > 0) {
            left -= 1;
            simulator.platforms.rotate(component.appId, APP_ID);
          }
          return redis.del(key);
        },
      }));
      expect(await failureFor(from)).toBe(code);
      expect(calls('api_get_authorizer_list')).toBe(3);
    },
  );

  test('that an event has replaced while it was asked for does not replace it', async () => {
    const authorizations = createAuthorizations(corner.redis, corner.keys);
    const used = await authorizations.read(component, APP_ID);
    await authorized();
    await authorizations.keep(component, APP_ID, used, new Secret('of the authorisation before'));
    expect((await authorizations.read(component, APP_ID))?.code).toBeDefined();
    await tokenFor(source());
    advance(2 * HOUR);
    await tokenFor(source());
  });

  test('that was lost with Redis is looked up', async () => {
    await corner.redis.del(corner.keys.authorizers(component.appId));
    await events.seen(component.appId, APP_ID);
    await tokenFor(source());
    expect(calls('api_get_authorizer_list')).toBe(1);
  });

  test('of the configuration is used where none is known, and the one that comes with it after that', async () => {
    const known = await createAuthorizations(corner.redis, corner.keys).read(component, APP_ID);
    await corner.redis.del(corner.keys.authorizers(component.appId));
    const refreshToken = known?.refreshToken as Secret;
    const configured: Account = { appId: APP_ID, credential: { type: 'authorizer', component, refreshToken } };
    await tokenFor(source(), configured);
    advance(2 * HOUR);
    await tokenFor(source(), configured);
    expect(calls('api_get_authorizer_list')).toBe(0);
  });

  test('is looked for further on where the last look was broken off, and the list may end in a short page', async () => {
    for (let index = 0; index < 1_700; index += 1)
      simulator.platforms.authorize(component.appId, `wx${String(index).padStart(16, '0')}`);
    simulator.platforms.authorize(component.appId, OTHER_APP_ID);
    simulator.platforms.longestPage = 400;
    const of: Account = { appId: OTHER_APP_ID, credential: { type: 'authorizer', component } };
    const busy = { type: 'html', status: 502 } as const;
    const from = source();
    for (const pages of [2, 1]) {
      simulator.platforms.counts.delete('api_get_authorizer_list');
      const end = simulator.arm({ endpoint: 'component', call: 'api_get_authorizer_list', action: busy, after: pages });
      expect(await failureFor(from, of)).toBe('weixin-bad-gateway');
      end();
      advance(5 * MINUTE);
    }
    simulator.platforms.counts.delete('api_get_authorizer_list');
    await tokenFor(from, of);
    expect(calls('api_get_authorizer_list')).toBe(2);
    expect(await corner.redis.exists(corner.keys.listOffset(OTHER_APP_ID))).toBe(0);
    const nobody: Account = { appId: 'wx9999999999999999', credential: { type: 'authorizer', component } };
    expect(await failureFor(from, nobody)).toBe('authorization-withdrawn');
  });

  test('of an account beyond the first page is found', async () => {
    for (let index = 0; index < 1_100; index += 1)
      simulator.platforms.authorize(component.appId, `wx${String(index).padStart(16, '0')}`);
    simulator.platforms.authorize(component.appId, OTHER_APP_ID);
    const of: Account = { appId: OTHER_APP_ID, credential: { type: 'authorizer', component } };
    await tokenFor(source(), of);
    expect(calls('api_get_authorizer_list')).toBe(3);
  });
});

describe('an authorisation', () => {
  beforeEach(ticketCame);

  test('that is withdrawn gives no token, until the account authorises anew', async () => {
    await authorized();
    const from = source();
    await tokenFor(from);
    simulator.platforms.withdraw(component.appId, APP_ID);
    advance(SECOND);
    await events.withdrawn(component.appId, APP_ID, clock.now());
    expect(told.at(-1)).toBe(`withdrawn ${APP_ID}`);
    expect(await failureFor(source())).toBe('authorization-withdrawn');
    advance(SECOND);
    await authorized();
    expect(told.at(-1)).toBe(`authorized ${APP_ID}`);
    await tokenFor(source());
  });

  test('that was given again without our being told is found by the next probe', async () => {
    await authorized();
    advance(SECOND);
    await events.withdrawn(component.appId, APP_ID, clock.now());
    simulator.platforms.authorize(component.appId, APP_ID);
    await tokenFor(source());
  });

  test.each(['before', 'after'])('is judged by its time, whichever push comes %s', async (order) => {
    const code = simulator.platforms.authorize(component.appId, APP_ID);
    const [earlier, later] = [clock.now(), clock.now() + 5 * SECOND];
    const withdraw = (): Promise<void> => events.withdrawn(component.appId, APP_ID, earlier);
    const authorize = (): Promise<void> => events.authorized(component.appId, APP_ID, code, later);
    for (const step of order === 'before' ? [withdraw, authorize] : [authorize, withdraw]) await step();
    const known = await createAuthorizations(corner.redis, corner.keys).read(component, APP_ID);
    expect(known?.status).toBe('authorized');
    expect(told.at(-1)).toBe(`authorized ${APP_ID}`);
  });

  test('whose push is repeated is redeemed once', async () => {
    const code = simulator.platforms.authorize(component.appId, APP_ID);
    const [from, at] = [source(), clock.now()];
    for (let pushes = 0; pushes < 3; pushes += 1) {
      await events.authorized(component.appId, APP_ID, code, at);
      expect(await from.redeemCodes([component], never)).toEqual(new Map());
    }
    expect(calls('api_query_auth')).toBe(1);
    await tokenFor(from);
    expect(calls('api_query_auth')).toBe(1);
    expect(calls('api_authorizer_token')).toBe(1);
  });

  test('is redeemed by one of several processes', async () => {
    await authorized();
    await Promise.all([source(), source(), source()].map((from) => from.redeemCodes([component], never)));
    expect(calls('api_query_auth')).toBe(1);
  });

  test.each([
    ['has expired', () => advance(HOUR), 0],
    [
      'was redeemed, but the answer was lost',
      () =>
        void simulator.arm({
          endpoint: 'component',
          call: 'api_query_auth',
          action: { type: 'lost-answer' },
          times: 1,
        }),
      1,
    ],
  ])('whose code %s is found in the list', async (_what, spoil, failures) => {
    await authorized();
    spoil();
    await ticketCame();
    const from = source();
    expect((await from.redeemCodes([component], never)).size).toBe(failures);
    await from.redeemCodes([component], never);
    expect(await createAuthorizations(corner.redis, corner.keys).pending(component.appId)).toEqual([]);
    await tokenFor(from);
    expect(calls('api_get_authorizer_list')).toBe(1);
  });

  test('that brings no token is not redeemed for ever', async () => {
    simulator.platforms.withoutTokens.add(APP_ID);
    await authorized();
    const from = source();
    await from.redeemCodes([component], never);
    await from.redeemCodes([component], never);
    expect(calls('api_query_auth')).toBe(1);
  });

  test('whose code is older than any is known to live is not asked for', async () => {
    await authorized();
    advance(HOUR + MINUTE);
    await source().redeemCodes([component], never);
    expect(calls('api_query_auth')).toBe(0);
  });

  test.each([0, 1])('is of the platform that the account has not left, whatever their order (%i)', async (order) => {
    const other: Component = { ...component, appId: 'wxdddddddddddddddd' };
    const authorizations = createAuthorizations(corner.redis, corner.keys);
    const components = order === 0 ? [component, other] : [other, component];
    const book = createAccountBook([], components, authorizations);
    const servedBy = async (): Promise<string | undefined> => {
      await book.refresh();
      const credential = book.find(APP_ID)?.credential;
      return credential?.type === 'authorizer' ? credential.component.appId : undefined;
    };
    await authorizations.authorize(component, APP_ID, new Secret('one'), 1_000);
    expect(await servedBy()).toBe(component.appId);
    await authorizations.authorize(other, APP_ID, new Secret('two'), 2_000);
    expect(await servedBy()).toBe(other.appId);
    await authorizations.withdraw(other, APP_ID, 3_000);
    expect(await servedBy()).toBe(component.appId);
    await authorizations.withdraw(component, APP_ID, 4_000);
    expect(await servedBy()).toBe(component.appId);
  });

  test('whose withdrawal is repeated after a probe has found it again is left alone', async () => {
    await authorized();
    advance(SECOND);
    const at = clock.now();
    await events.withdrawn(component.appId, APP_ID, at);
    simulator.platforms.authorize(component.appId, APP_ID);
    await tokenFor(source());
    told.length = 0;
    await events.withdrawn(component.appId, APP_ID, at);
    expect(told).toEqual([]);
  });

  test('whose code can not be redeemed now keeps it', async () => {
    await authorized();
    simulator.arm({ endpoint: 'component', action: { type: 'html', status: 502 }, times: 3 });
    const from = source();
    expect([...(await from.redeemCodes([component], never)).values()].map(({ code }) => code)).toEqual([
      'weixin-bad-gateway',
    ]);
    simulator.disarm();
    advance(MINUTE);
    expect(await from.redeemCodes([component], never)).toEqual(new Map());
    await tokenFor(from);
  });

  test('makes its app known to the account book, beside those of the configuration', async () => {
    const own: Account = { appId: OTHER_APP_ID, credential: { type: 'stable_token', secret: new Secret('s') } };
    const book = createAccountBook([own], [component], createAuthorizations(corner.redis, corner.keys));
    expect(book.has(APP_ID)).toBe(false);
    await authorized();
    await events.seen(component.appId, OTHER_APP_ID);
    await book.refresh();
    expect(book.find(APP_ID)).toEqual(account);
    expect(book.find(OTHER_APP_ID)).toBe(own);
    expect(new Set(book.list())).toEqual(new Set([account, own]));
  });

  test('of an app that is configured with a secret of its own does nothing to it', async () => {
    const key = corner.keys.token(OWN.appId);
    await corner.redis.hset(key, 'sealed', 'its own');
    simulator.platforms.authorize(component.appId, OWN.appId);
    await events.authorized(component.appId, OWN.appId, 'code', clock.now());
    await events.withdrawn(component.appId, OWN.appId, clock.now() + SECOND);
    expect(told).toEqual(['ticket']);
    expect(await corner.redis.hget(key, 'sealed')).toBe('its own');
  });

  test('of a platform that is not configured is ignored', async () => {
    await events.authorized('wxdddddddddddddddd', APP_ID, 'code', clock.now());
    await events.ticket('wxdddddddddddddddd', 'ticket', clock.now());
    expect(told).toEqual(['ticket']);
    expect(await corner.redis.keys(`${corner.prefix}*dddd*`)).toEqual([]);
  });
});
