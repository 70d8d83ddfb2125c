import { afterEach, beforeEach, expect, test } from 'vitest';
import { failure } from '../../src/failure.ts';
import { platformGates } from '../../src/ingest/platform-gates.ts';
import { GATE_RULES, type GateReason } from '../../src/queue/gate-rules.ts';
import { createGates, type Gates } from '../../src/queue/gates.ts';
import { Secret } from '../../src/secret.ts';
import type { Account, Component } from '../../src/weixin/credentials/account.ts';
import { type Authorizations, createAuthorizations } from '../../src/weixin/credentials/authorizations.ts';
import { always, testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const push = { token: new Secret('t'), encodingAesKey: new Secret('k'.repeat(43)), mustBeEncrypted: true };
const component: Component = { appId: 'wxcccccccccccccccc', secret: new Secret('s'), push };

let corner: TestRedis;
let gates: Gates;
let authorizations: Authorizations;
let opened: string[];
/** Another platform serves it by now. */
let movedAway: boolean;
const elsewhere: Account = {
  appId: APP_ID,
  credential: { type: 'authorizer', component: { ...component, appId: 'wxdddddddddddddddd' } },
};
let hooks: ReturnType<typeof platformGates>;

beforeEach(async () => {
  corner = await openTestRedis();
  const { now } = testClock();
  gates = createGates(corner.redis, corner.keys, now, now, always(0));
  authorizations = createAuthorizations(corner.redis, corner.keys);
  await authorizations.see(component, APP_ID);
  opened = [];
  const served: Account = { appId: APP_ID, credential: { type: 'authorizer', component } };
  const other: Account = { appId: OTHER_APP_ID, credential: { type: 'stable_token', secret: new Secret('s') } };
  const book = {
    list: () => [served, other],
    find: (appId: string) => (movedAway && appId === APP_ID ? elsewhere : undefined),
    refresh: async () => [],
  };
  movedAway = false;
  hooks = platformGates(gates, authorizations, book, (appId) => opened.push(appId));
});
afterEach(() => corner[Symbol.asyncDispose]());

const close = async (appId: string, reason: GateReason): Promise<void> => {
  await gates.close(appId, reason, failure(reason));
};
const reasons = async (): Promise<[string, string][]> =>
  (await gates.list()).map(({ appId, reason }): [string, string] => [appId, reason]);

test.each(Object.keys(GATE_RULES) as GateReason[])(
  'an authorisation opens the gate of its account where it can be the cure of %s',
  async (reason) => {
    const cures = ['authorization-withdrawn', 'api-unauthorized', 'app-not-configured'].includes(reason);
    await close(APP_ID, reason);
    await close(OTHER_APP_ID, reason);
    await hooks.onAuthorized(component, APP_ID);
    expect(opened).toEqual(cures ? [APP_ID] : []);
    expect((await reasons()).toSorted()).toEqual([...(cures ? [] : [[APP_ID, reason]]), [OTHER_APP_ID, reason]]);
  },
);

test('a withdrawal closes the gate, whatever it was before', async () => {
  for (const appId of [APP_ID, OTHER_APP_ID]) await authorizations.withdraw(component, appId, 1);
  await hooks.onWithdrawn(component, APP_ID);
  await close(OTHER_APP_ID, 'quota-exhausted');
  await hooks.onWithdrawn(component, OTHER_APP_ID);
  expect((await reasons()).map(([, reason]) => reason)).toEqual(['authorization-withdrawn', 'authorization-withdrawn']);
});

test('a withdrawal that is told while the account authorises anew closes nothing', async () => {
  await authorizations.withdraw(component, APP_ID, 1);
  await authorizations.authorize(component, APP_ID, new Secret('code'), 2);
  await hooks.onWithdrawn(component, APP_ID);
  expect(await reasons()).toEqual([]);
  expect(opened).toEqual([APP_ID]);
});

test('a withdrawal from a platform that serves the account no more closes nothing for long', async () => {
  await authorizations.withdraw(component, APP_ID, 1);
  movedAway = true;
  await hooks.onWithdrawn(component, APP_ID);
  expect(await reasons()).toEqual([]);
});

test('the first ticket opens the gates of the accounts of its platform that waited for one', async () => {
  await close(APP_ID, 'component-ticket-missing');
  await close(OTHER_APP_ID, 'component-ticket-missing');
  await hooks.onTicket(component);
  expect(opened).toEqual([APP_ID]);
  await close(APP_ID, 'rate-limited');
  await hooks.onTicket(component);
  expect(await reasons()).toEqual(expect.arrayContaining([[APP_ID, 'rate-limited']]));
});
