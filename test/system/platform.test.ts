import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import {
  type PushOutcome,
  type PushSender,
  pushMessage,
  type SimulatedFields,
  simulatedMessage,
} from '../../src/demo/weixin/message-push.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { OTHER_APP_ID } from '../support/jobs.ts';
import { leaksIn } from '../support/leaks.ts';
import { AES_KEY, COMPONENT_ID, PUSH_TOKEN } from '../support/push.ts';
import { dumpBucket, dumpRedis, lettersOf, logLines, notArchived, openStack, type Stack } from '../support/stack.ts';

vi.setConfig({ testTimeout: 180_000 });

const never = new AbortController().signal;
/** Neither stands in the accounts file. */
const FIRST = 'wx00000000000000a1';
const SECOND_APP = OTHER_APP_ID;
const PLATFORM_SECRET = 'the-secret-of-the-platform';
const WAIT_MS = 120 * SECOND;

const sender: PushSender = {
  token: PUSH_TOKEN,
  encodingAesKey: AES_KEY,
  appId: COMPONENT_ID,
  mode: 'safe',
  format: 'xml',
};

interface Platform extends AsyncDisposable {
  readonly stack: Stack;
  readonly worker: WorkerProcess;
  readonly ingest: WorkerProcess & { readonly url: string };
  /** Pushes an event to the authorisation event URL. */
  event(infoType: string, fields: SimulatedFields): Promise<PushOutcome>;
  ticket(): Promise<PushOutcome>;
  /** Users send a picture to an account, which WeChat pushes. */
  picture(appId: string): Promise<SimulatedMedia>;
}

async function openPlatform(): Promise<Platform> {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-platform-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, 'accounts.json');
  const push = { token: { env: 'PUSH_TOKEN' }, encodingAesKey: { env: 'PUSH_KEY' } };
  const components = [{ appId: COMPONENT_ID, secret: { env: 'PLATFORM_SECRET' }, push }];
  await writeFile(path, JSON.stringify({ components }));
  const secrets = { PLATFORM_SECRET, PUSH_TOKEN, PUSH_KEY: AES_KEY };
  const env = { ...secrets, WEIXIN_ACCOUNTS_FILE: path, LOG_LEVEL: 'trace' };
  const stack = parts.use(await openStack({ ownRedis: true, env }));
  const { simulator } = stack;
  simulator.platforms.addPlatform({ appId: COMPONENT_ID, secret: PLATFORM_SECRET });
  for (const appId of [FIRST, SECOND_APP]) simulator.addApp({ appId, secret: 'of-nobody-here' });
  const worker = stack.worker();
  const [ingest] = await Promise.all([stack.ingest(), worker.said('worker started')]);
  const send = (path: string, fields: SimulatedFields): Promise<PushOutcome> =>
    pushMessage(
      `${ingest.url}/weixin/component/${COMPONENT_ID}${path}`,
      fields,
      sender,
      { answerMs: 5 * SECOND, pauseMs: SECOND, tries: 3 },
      Date.now,
      never,
    );
  const event = (infoType: string, fields: SimulatedFields): Promise<PushOutcome> =>
    send('', { AppId: COMPONENT_ID, CreateTime: Math.floor(Date.now() / SECOND), InfoType: infoType, ...fields });
  const moved = parts.move();
  return {
    stack,
    worker,
    ingest,
    event,
    ticket: () =>
      event('component_verify_ticket', { ComponentVerifyTicket: simulator.platforms.newTicket(COMPONENT_ID) }),
    picture: async (appId) => {
      const [media] = stack.addMedia(1, { appId, sizeBytes: 5_000 });
      if (media === undefined) throw new Error('no media');
      const message = simulatedMessage('image', { PicUrl: 'http://mmbiz/0', MediaId: media.mediaId }, Date.now());
      expect(await send(`/${appId}`, message)).toMatchObject({ handled: true, answers: [{ body: 'success' }] });
      return media;
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

/** Waits until all of them lie in the bucket. */
async function archived({ stack, worker }: Platform, media: readonly SimulatedMedia[]): Promise<void> {
  const ids = media.map(({ appId, mediaId }) => `${appId}-${mediaId}`);
  await eventually(async () => {
    const keys = await stack.queue.markers.find(ids);
    return keys.every((key) => key !== undefined) ? true : undefined;
  }, WAIT_MS).catch((error: unknown) => {
    throw new Error(worker.log().slice(-3_000), { cause: error });
  });
  expect(await notArchived(stack, media)).toEqual([]);
}

async function gateOf({ stack }: Platform, appId: string): Promise<string | undefined> {
  return (await stack.queue.gates.list()).find((gate) => gate.appId === appId)?.reason;
}

async function untilGateIs(platform: Platform, appId: string, reason: string | undefined): Promise<void> {
  await eventually(async () => ((await gateOf(platform, appId)) === reason ? true : undefined), WAIT_MS);
}

test('a platform lives by what WeChat pushes: tickets, authorisations, withdrawals, messages', async () => {
  await using platform = await openPlatform();
  const { stack, worker, ingest } = platform;
  const { simulator } = stack;

  // Authorised long ago, before anybody listened: known from the first message, and listed by WeChat.
  simulator.platforms.authorize(COMPONENT_ID, FIRST);
  const early = await platform.picture(FIRST);
  await untilGateIs(platform, FIRST, 'component-ticket-missing');
  expect(simulator.platforms.ticketsAskedFor(COMPONENT_ID)).toBe(1);
  expect(await platform.ticket()).toMatchObject({ handled: true });
  await archived(platform, [early]);

  // Another one authorises it now: its code is redeemed without a message.
  const code = simulator.platforms.authorize(COMPONENT_ID, SECOND_APP);
  const authorized = { AuthorizerAppid: SECOND_APP, AuthorizationCode: code, PreAuthCode: 'preauthcode@@@x' };
  for (let times = 0; times < 2; times += 1)
    expect(await platform.event('authorized', authorized)).toMatchObject({ handled: true });
  await eventually(() => (simulator.platforms.counts.get('api_query_auth') === 1 ? true : undefined), WAIT_MS);
  await archived(platform, [await platform.picture(SECOND_APP)]);
  expect(simulator.platforms.counts.get('api_query_auth')).toBe(1);

  // It withdraws, and messages that were on their way still come.
  simulator.platforms.withdraw(COMPONENT_ID, SECOND_APP);
  expect(await platform.event('unauthorized', { AuthorizerAppid: SECOND_APP })).toMatchObject({ handled: true });
  await untilGateIs(platform, SECOND_APP, 'authorization-withdrawn');
  const [waiting, other] = [await platform.picture(SECOND_APP), await platform.picture(FIRST)];
  await archived(platform, [other]);
  expect(await stack.queue.lanes.lane(`media-${SECOND_APP}`).peek(`${SECOND_APP}-${waiting.mediaId}`)).toBeDefined();

  // And again it authorises: what waited goes on at once.
  const again = simulator.platforms.authorize(COMPONENT_ID, SECOND_APP);
  await platform.event('updateauthorized', { AuthorizerAppid: SECOND_APP, AuthorizationCode: again });
  await untilGateIs(platform, SECOND_APP, undefined);
  await archived(platform, [waiting]);
  expect(await lettersOf(stack)).toEqual([]);

  // Its operators see it.
  const status = await stack.command(['enqueue', '--json', SECOND_APP, 'known-to-no-file']);
  expect(status.rows()).toMatchObject([{ accepted: 1 }]);
  const doctor = await stack.command(['doctor', '--json']);
  expect(doctor.rows()).toContainEqual(
    expect.objectContaining({ check: `platform ${COMPONENT_ID}`, result: 'ok', detail: expect.stringContaining('2') }),
  );
  expect(logLines(ingest, 'an account has authorised')).toHaveLength(3);
  expect(logLines(ingest, 'an account has withdrawn')).toHaveLength(1);

  const secrets = new Map([
    [PLATFORM_SECRET, 'the secret'],
    [PUSH_TOKEN, 'the token of the push'],
    [AES_KEY, 'the key of the push'],
    ...simulator.issuedTokens().map((token): [string, string] => [token.slice(0, 32), 'a token']),
  ]);
  const places = new Map([
    ['the logs', `${worker.log()}\n${ingest.log()}`],
    ['Redis', await dumpRedis(stack.redis)],
    ['the bucket', await dumpBucket(stack)],
    ['what doctor says', `${doctor.stdout}${doctor.stderr}`],
  ]);
  expect(leaksIn(secrets, places)).toEqual([]);
});

test('every token of a platform expires all the time, and every media is saved', async () => {
  await using platform = await openPlatform();
  const { stack } = platform;
  const { platforms } = stack.simulator;
  platforms.tokenLifeMs = 2 * SECOND;
  await platform.ticket();
  for (const appId of [FIRST, SECOND_APP]) {
    const code = platforms.authorize(COMPONENT_ID, appId);
    await platform.event('authorized', { AuthorizerAppid: appId, AuthorizationCode: code });
  }
  const media: SimulatedMedia[] = [];
  const startedAt = performance.now();
  // For several lives of a token, however fast the machine is.
  while (performance.now() - startedAt < 8 * SECOND) {
    media.push(...(await Promise.all([FIRST, SECOND_APP].map(platform.picture))));
    if (media.length % 60 === 0) await platform.ticket();
    if (media.length % 100 === 0) platforms.rotate(COMPONENT_ID, FIRST);
  }
  await archived(platform, media);
  expect(await lettersOf(stack)).toEqual([]);
  const seconds = (performance.now() - startedAt) / SECOND;
  // One call a level and life, and some for what was rotated under way.
  for (const name of ['api_component_token', 'api_authorizer_token'])
    expect(platforms.counts.get(name)).toBeLessThan(20 + 4 * seconds);
});
