import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import type { FaultAction } from '../../src/demo/weixin/fault.ts';
import { hdVoiceOf, type SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { startTokenService } from '../../src/demo/weixin/token-service.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { DAY, SECOND } from '../../src/time.ts';
import { createAuthorizations } from '../../src/weixin/credentials/authorizations.ts';
import { createComponentEvents } from '../../src/weixin/credentials/component-events.ts';
import { createComponentTickets } from '../../src/weixin/credentials/component-tickets.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, APP_SECRET } from '../support/jobs.ts';
import { leaksIn } from '../support/leaks.ts';
import {
  dumpBucket,
  dumpRedis,
  healthUrl,
  jobOf,
  lettersOf,
  notArchived,
  openStack,
  type Stack,
  untilIdle,
} from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

/** One app of each kind, beside that of the environment, which is a stable_token. */
const APPS = {
  token: 'wx00000000000000a1',
  service: 'wx00000000000000a2',
  redis: 'wx00000000000000a3',
  sidecar: 'wx00000000000000a4',
  tokenFile: 'wx00000000000000a5',
  authorizer: 'wx00000000000000a6',
} as const;
const ALL_APPS: readonly string[] = [APP_ID, ...Object.values(APPS)];
const PLATFORM = 'wx00000000000000c0';
/** So much of a token is told by no accident; the texts that are kept of an answer are cut. */
const TELLING_LENGTH = 32;
const REDIS_KEY = 'somebody:elses:token';

const SECRETS = {
  TOKEN_SECRET: 'the-secret-of-the-token-app',
  SERVICE_PASSWORD: 'Bearer the-password-of-the-token-service',
  PLATFORM_SECRET: 'the-secret-of-the-platform',
  PLATFORM_TOKEN: 'thetokenofthepushesoftheplatform',
  PLATFORM_KEY: 'TheEncodingAESKeyOfThePlatformHas43Letters0',
} as const;

async function fetchToken({ simulator }: Stack, appId: string): Promise<string> {
  const response = await fetch(`${simulator.url}/cgi-bin/stable_token`, {
    method: 'POST',
    body: JSON.stringify({ grant_type: 'client_credential', appid: appId, secret: 'of-nobody-here' }),
  });
  return ((await response.json()) as { access_token: string }).access_token;
}

/** What comes to a platform from WeChat: a ticket, and that an app has authorised it. */
async function authorize({ simulator, queue, redis, config }: Stack): Promise<void> {
  const { keys } = queue;
  simulator.platforms.addPlatform({ appId: PLATFORM, secret: SECRETS.PLATFORM_SECRET });
  const events = createComponentEvents({
    redis,
    keys,
    components: config.components,
    tickets: createComponentTickets(redis, keys, Date.now),
    authorizations: createAuthorizations(redis, keys),
    accounts: { find: () => undefined, refresh: async () => [] },
    onTicket: async () => undefined,
    onAuthorized: async () => undefined,
    onWithdrawn: async () => undefined,
  });
  const code = simulator.platforms.authorize(PLATFORM, APPS.authorizer);
  await events.ticket(PLATFORM, simulator.platforms.newTicket(PLATFORM), Date.now());
  await events.authorized(PLATFORM, APPS.authorizer, code, Date.now());
}

test('apps of every kind of credential are archived side by side, and nothing that proves them is found anywhere', async () => {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-credentials-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const tokenFile = join(folder, 'cloudbase_access_token');
  const service = await startTokenService({
    password: SECRETS.SERVICE_PASSWORD,
    fetchToken: () => fetchToken(stack, APPS.service),
  });
  parts.defer(() => service.close());
  const path = join(folder, 'accounts.json');
  const external = {
    type: 'external',
    url: service.url,
    headers: { Authorization: { env: 'SERVICE_PASSWORD' } },
    path: 'data.access_token',
    invalidate: { url: service.invalidateUrl },
  };
  const accounts = [
    { appId: APPS.token, credential: { type: 'token', secret: { env: 'TOKEN_SECRET' } } },
    { appId: APPS.service, credential: external },
    { appId: APPS.redis, credential: { type: 'external', redisKey: REDIS_KEY } },
    { appId: APPS.sidecar, credential: { type: 'cloud', mode: 'sidecar' } },
    { appId: APPS.tokenFile, credential: { type: 'cloud', mode: 'token-file', tokenFile } },
    { appId: APPS.authorizer, credential: { type: 'authorizer', component: PLATFORM } },
  ];
  const push = { token: { env: 'PLATFORM_TOKEN' }, encodingAesKey: { env: 'PLATFORM_KEY' } };
  const components = [{ appId: PLATFORM, secret: { env: 'PLATFORM_SECRET' }, push }];
  await writeFile(path, JSON.stringify({ accounts, components }));

  const env = { ...SECRETS, WEIXIN_ACCOUNTS_FILE: path, LOG_LEVEL: 'trace' };
  const stack = parts.use(await openStack({ ownRedis: true, env }));
  const { simulator } = stack;
  for (const appId of Object.values(APPS))
    simulator.addApp({ appId, secret: appId === APPS.token ? SECRETS.TOKEN_SECRET : 'of-nobody-here' });
  const cloudRun = simulator.openCloudRun({ owner: APPS.sidecar, sharedWith: [APPS.tokenFile] });
  await writeFile(tokenFile, cloudRun.token());
  await stack.redis.set(REDIS_KEY, await fetchToken(stack, APPS.redis));
  await authorize(stack);

  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  const admit = async (media: readonly SimulatedMedia[], fields: Partial<MediaJob> = {}): Promise<void> => {
    await stack.queue.door.admit(media.map((added) => ({ ...jobOf(added), ...fields })));
  };
  const addToAll = (count: number, fields: Parameters<Stack['addMedia']>[1] = {}): SimulatedMedia[] =>
    ALL_APPS.flatMap((appId) => stack.addMedia(count, { sizeBytes: 5_000, ...fields, appId }));

  const images = addToAll(6);
  // A voice, its rendition in 16 kHz, which is a media of its own, and the one in HD, which is not.
  const voices = addToAll(2, { format: 'amr' });
  await admit([...images, ...voices]);
  await admit(voices, { variant: 'hd-voice' });
  await untilIdle(stack, 120_000);
  // What a gateway gives back of the request that it could not serve.
  const sent = new Map<string, string>([
    [APPS.service, await fetchToken(stack, APPS.service)],
    [APPS.redis, await fetchToken(stack, APPS.redis)],
    [APPS.tokenFile, cloudRun.token()],
  ]);
  const echoFor = (appId: string): FaultAction => ({ type: 'text', body: `no such path: ?${sent.get(appId) ?? ''}` });
  const later = addToAll(2);
  for (const { appId, mediaId } of later)
    simulator.arm({ endpoint: 'media', mediaId, action: echoFor(appId), times: 1 });
  const lost = addToAll(1, { ageMs: 3 * DAY - 5 * SECOND });
  for (const { appId, mediaId } of lost) simulator.arm({ endpoint: 'media', mediaId, action: echoFor(appId) });
  await admit([...later, ...lost]);
  await untilIdle(stack, 120_000);

  // The service does not notice that its token was replaced, until it is told.
  service.fault = 'stale';
  simulator.rotateToken(APPS.service);
  const last = stack.addMedia(2, { appId: APPS.service });
  await admit(last);
  await untilIdle(stack, 120_000);

  expect(await notArchived(stack, [...images, ...voices, ...later, ...last])).toEqual([]);
  for (const voice of voices) {
    const { appId, mediaId } = voice;
    const [key] = await stack.queue.markers.find([`${appId}-${mediaId}.hd-voice`]);
    expect(key).toMatch(new RegExp(`^media/app=${appId}/kind=voice/dt=[\\d-]+/${mediaId}\\.hd-voice\\.speex$`));
    expect(await stack.opened.store.digest(key ?? '', AbortSignal.timeout(60_000))).toMatchObject({
      value: { sha256: hdVoiceOf(voice)?.bytes.sha256 },
    });
  }
  expect((await lettersOf(stack)).map(({ mediaId }) => mediaId).toSorted()).toEqual(
    lost.map(({ mediaId }) => mediaId).toSorted(),
  );
  expect(service.counts.told).toBe(1);
  for (const appId of [APPS.sidecar, APPS.tokenFile]) expect(simulator.counts.tokens.has(appId)).toBe(false);

  const metrics = await Promise.all(
    workers.map(async (worker) => (await fetch(`${healthUrl(worker)}/metrics`)).text()),
  );
  const kinds = new Set(
    [...metrics.join('\n').matchAll(/token_refresh_total\{kind="([a-z_]+)"/g)].map(([, kind]) => kind),
  );
  expect([...kinds].toSorted()).toEqual(['authorizer', 'component', 'external', 'stable_token', 'token']);

  // What somebody else has put there is theirs.
  await stack.redis.del(REDIS_KEY);
  const secrets = new Map([
    ...Object.entries({ APP_SECRET, ...SECRETS }).map(([name, secret]): [string, string] => [secret, name]),
    ...[...simulator.issuedTokens(), ...cloudRun.issuedTokens()].map((token): [string, string] => [
      token.slice(0, TELLING_LENGTH),
      'a token',
    ]),
  ]);
  const doctor = await stack.command(['doctor', '--json']);
  const places = new Map([
    ['the logs', await eventually(() => workers.map((worker) => worker.log()).join('\n'))],
    ['the metrics', metrics.join('\n')],
    ['Redis', await dumpRedis(stack.redis)],
    ['the bucket', await dumpBucket(stack)],
    ['what doctor says', `${doctor.stdout}${doctor.stderr}`],
  ]);
  expect(leaksIn(secrets, places)).toEqual([]);
});
