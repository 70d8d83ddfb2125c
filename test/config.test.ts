import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ConfigError, type ConfigMistake, type ConfigNeed, loadConfig } from '../src/config.ts';
import { VARIABLES } from '../src/config-variables.ts';
import { Secret } from '../src/secret.ts';
import type {
  Account,
  AuthorizerCredential,
  Credential,
  ExternalCredential,
} from '../src/weixin/credentials/account.ts';
import { APP_ID, APP_SECRET, OTHER_APP_ID } from './support/jobs.ts';

type Env = Record<string, string>;

const GOOD: Env = { ARCHIVE_BUCKET: 'media', WEIXIN_APP_ID: APP_ID, WEIXIN_APP_SECRET: APP_SECRET };

let folder: string;

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'weixin-media-config-'));
});

afterAll(() => rmSync(folder, { recursive: true, force: true }));

function fileOf(content: unknown): string {
  const path = join(folder, `${crypto.randomUUID()}.json`);
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

function errorOf(env: Env, needs: ConfigNeed[] = []): ConfigError {
  try {
    loadConfig(env, needs);
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

function mistakesOf(env: Env, needs: ConfigNeed[] = []): readonly ConfigMistake[] {
  return errorOf(env, needs).mistakes;
}

function namesOf(env: Env, needs: ConfigNeed[] = []): string[] {
  return mistakesOf(env, needs).map(({ variable }) => variable);
}

describe('what is read', () => {
  test('nothing set gives the documented defaults', () => {
    const { redis, weixin, media, worker, ingest, logLevel, store, accounts } = loadConfig({});
    expect(redis.url.reveal()).toBe('redis://127.0.0.1:6379');
    expect(redis).toMatchObject({ prefix: '{weixin-media}', sentinelMaster: 'mymaster' });
    expect(redis.sentinels).toBeUndefined();
    expect(redis.clusterNodes).toBeUndefined();
    expect(weixin.apiBaseUrls.map(String)).toEqual(['https://api.weixin.qq.com/']);
    expect(weixin.downloadAllowHosts).toEqual([]);
    expect(weixin.timeouts).toEqual({ connectMs: 10_000, responseMs: 30_000, idleMs: 30_000, totalMs: 600_000 });
    expect(media).toEqual({ ttlMs: 259_200_000, maxBytes: 536_870_912, openId: { type: 'none' } });
    expect(worker).toEqual({
      processes: 1,
      concurrency: 32,
      memoryBudgetBytes: 268_435_456,
      lockMs: 60_000,
      shutdownGraceMs: 30_000,
      metricsHost: '127.0.0.1',
      metricsPort: 9464,
    });
    expect(ingest).toEqual({ host: '127.0.0.1', port: 8080, tokens: [], rateLimit: 2_000 });
    expect(logLevel).toBe('info');
    expect(store).toBeUndefined();
    expect(accounts).toEqual([]);
  });

  test('an empty variable counts as not set', () => {
    const empty = Object.fromEntries(Object.keys(VARIABLES).map((name) => [name, '']));
    expect(loadConfig(empty)).toEqual(loadConfig({}));
  });

  test.each(Object.entries(VARIABLES).filter(([, { secret }]) => secret !== true))(
    'the example of %s is of the expected form',
    (_name, { parse, example }) => {
      expect(parse(example)).toBeDefined();
    },
  );

  test.each([
    ['8MiB', 8_388_608],
    ['6144KiB', 6_291_456],
    ['1GiB', 1_073_741_824],
    ['5242880', 5_242_880],
    ['5242880B', 5_242_880],
    ['8 MiB', 8_388_608],
  ])('the size %s is %d bytes', (text, bytes) => {
    const { store } = loadConfig({ ...GOOD, ARCHIVE_PART_SIZE: text, WORKER_MEMORY_BUDGET: '4GiB' }, ['store']);
    expect(store.partSizeBytes).toBe(bytes);
  });

  test.each([
    ['http://127.0.0.1:3000/weixin', true],
    ['https://bot.example.com/a/{appId}/b?c={appId}', true],
    ['http://{appId}.bots.example.com/', true],
    ['ftp://bot/', false],
    ['bot:3000', false],
    ['http://user:pass@bot/', false],
    ['http://bot/{appid}', false],
    ['http://bot/ {appId}', false],
  ])('messages are forwarded to %s: %s', (text, accepted) => {
    const env = { ...GOOD, WEIXIN_FORWARD_URL: text };
    if (accepted) expect(loadConfig(env).weixin.forwardUrl).toBe(text);
    else expect(namesOf(env)).toEqual(['WEIXIN_FORWARD_URL']);
  });

  test('addresses of several API hosts, Sentinels and Cluster nodes are lists', () => {
    const { weixin, redis } = loadConfig({
      WEIXIN_API_BASE_URL: 'https://api.weixin.qq.com, https://api2.weixin.qq.com',
      WEIXIN_DOWNLOAD_ALLOW_HOSTS: 'Media.Example.COM,127.0.0.1:8080,[::1]:80',
      REDIS_SENTINELS: 'a:26379,[::1]:26380',
      REDIS_CLUSTER_NODES: 'b:6379',
    });
    expect(weixin.apiBaseUrls.map(({ hostname }) => hostname)).toEqual(['api.weixin.qq.com', 'api2.weixin.qq.com']);
    expect(weixin.downloadAllowHosts).toEqual(['media.example.com', '127.0.0.1:8080', '[::1]:80']);
    expect(redis.sentinels).toEqual([
      { host: 'a', port: 26379 },
      { host: '::1', port: 26380 },
    ]);
    expect(redis.clusterNodes).toEqual([{ host: 'b', port: 6379 }]);
  });

  test.each([
    [{}, { endpoint: undefined, region: undefined }],
    [
      {
        AWS_ENDPOINT_URL_S3: 'http://s3:1',
        AWS_ENDPOINT_URL: 'http://all:1',
        AWS_REGION: 'r1',
        AWS_DEFAULT_REGION: 'r2',
      },
      { endpoint: 'http://s3:1', region: 'r1' },
    ],
    [
      { AWS_ENDPOINT_URL: 'http://all:1', AWS_DEFAULT_REGION: 'r2', AWS_ENDPOINT_URL_S3: '', AWS_REGION: '' },
      { endpoint: 'http://all:1', region: 'r2' },
    ],
  ])('endpoint and region come from the AWS variables %o', (aws, expected) => {
    const { store } = loadConfig({ ...GOOD, ...aws }, ['store']);
    expect({ endpoint: store.endpoint, region: store.region }).toEqual(expected);
  });

  test('the configuration is frozen all the way down', () => {
    const config = loadConfig({ ...GOOD, REDIS_SENTINELS: 'a:1', WEIXIN_DOWNLOAD_ALLOW_HOSTS: 'a' }, ['store']);
    for (const part of [
      config,
      config.redis,
      config.redis.sentinels,
      config.store,
      config.accounts,
      config.accounts[0],
      config.accounts[0]?.credential,
      config.weixin,
      config.weixin.apiBaseUrls,
      config.weixin.downloadAllowHosts,
      config.weixin.timeouts,
      config.media,
      config.media.openId,
      config.worker,
    ]) {
      expect(part).toBeDefined();
      expect(Object.isFrozen(part)).toBe(true);
    }
  });
});

describe('what is refused', () => {
  const wrong: readonly [keyof typeof VARIABLES, readonly string[]][] = [
    ['REDIS_URL', ['localhost:6379', 'http://127.0.0.1', 'redis//x', 'redis://:100%@127.0.0.1', 'redis://h/second']],
    ['REDIS_SENTINELS', ['a', 'a:', ':26379', 'a:1,', 'a:1,,b:2', 'redis://a:1', 'a:99999', 'a:0']],
    ['REDIS_CLUSTER_NODES', ['a', 'a:b', 'redis://a:1', 'a:70000']],
    ['REDIS_SENTINEL_MASTER', [' ']],
    ['REDIS_WAIT_REPLICAS', ['-1', '1.5', 'all', '11']],
    ['QUEUE_PREFIX', ['a:b', 'a b', '*']],
    ['ARCHIVE_BUCKET', ['ab', 'Media', 'media/2026', 's3://media', '-media', 'a'.repeat(64)]],
    ['ARCHIVE_PART_SIZE', ['8', '4MiB', '8MB', '-8MiB', '8.5MiB', 'MiB', '8 MiB ', '1e9']],
    ['ARCHIVE_OPEN_ID', ['HMAC', 'yes', 'sha256']],
    ['S3_FORCE_PATH_STYLE', ['1', 'yes', 'TRUE']],
    ['WEIXIN_APP_ID', ['wx123', 'WX0123456789abcdef', 'wx0123456789ABCDEF', `${APP_ID} `]],
    ['WEIXIN_PUSH_TOKEN', ['ab', 'a-b', 'a'.repeat(33)]],
    ['WEIXIN_PUSH_AES_KEY', ['a'.repeat(42), 'a'.repeat(44), `${'a'.repeat(42)}=`]],
    ['WEIXIN_PUSH_MODE', ['Safe', 'encrypted', 'aes']],
    ['WEIXIN_API_BASE_URL', ['api.weixin.qq.com', 'ftp://api.weixin.qq.com', 'https://a,', ',']],
    ['WEIXIN_FORWARD_URL', ['bot:3000']],
    ['WEIXIN_DOWNLOAD_ALLOW_HOSTS', ['*.example.com', 'http://a', 'a/b', 'a,', '10.0.0.0/8']],
    ['S3_CONNECT_TIMEOUT_SECONDS', ['0', '5s']],
    ['S3_IDLE_TIMEOUT_SECONDS', ['0', '-30']],
    ['S3_RESPONSE_TIMEOUT_SECONDS', ['0', '2min']],
    ['WEIXIN_CONNECT_TIMEOUT_SECONDS', ['0', '-1', '10s', '1e3', '86401']],
    ['WEIXIN_RESPONSE_TIMEOUT_SECONDS', ['0', 'never']],
    ['WEIXIN_IDLE_TIMEOUT_SECONDS', ['0', ' 30']],
    ['WEIXIN_TOTAL_TIMEOUT_SECONDS', ['0', 'Infinity']],
    ['MEDIA_TTL_HOURS', ['0', '-72', '3d', '8761']],
    ['MEDIA_MAX_BYTES', ['0', '512MB', 'unlimited']],
    ['WORKER_PROCESSES', ['0', '65', '1.5', 'auto']],
    ['WORKER_CONCURRENCY', ['0', '1025', '1.5', '-1', '0x10']],
    ['WORKER_MEMORY_BUDGET', ['1MiB', '256', '19MiB', '256MB']],
    ['WORKER_LOCK_SECONDS', ['0', '3601', 'x']],
    ['SHUTDOWN_GRACE_SECONDS', ['-1', '3601', 'x']],
    ['METRICS_HOST', [' ']],
    ['CATALOG_FLUSH_ROWS', ['0', '1.5', 'all', '1000001']],
    ['CATALOG_FLUSH_SECONDS', ['0', '-1', '1min']],
    ['CATALOG_CLOSE_AFTER_HOURS', ['-1', '6h']],
    ['CATALOG_MEMORY', ['63MiB', '128', 'much']],
    ['CATALOG_FOLDER', [' ']],
    ['METRICS_PORT', ['65536', '-1', 'http']],
    ['HTTP_HOST', [' ']],
    ['HTTP_PORT', ['65536', '-1', 'http']],
    ['API_TOKENS', ['short', 'read:', 'all:a-token-of-16-ch', 'a-token-of-16-ch,a-token-of-16-ch']],
    ['API_RATE_LIMIT', ['-1', '1.5', 'none', '1000001']],
    ['LOG_LEVEL', ['INFO', 'verbose']],
  ];

  test.each(wrong.flatMap(([name, values]) => values.map((value) => [name, value] as const)))(
    '%s=%j is told with the value, what is expected and an example',
    (name, value) => {
      const [mistake, ...more] = mistakesOf({ ...GOOD, [name]: value }).filter(({ variable }) => variable === name);
      expect(more).toEqual([]);
      expect(mistake?.expected).toBe(VARIABLES[name].expected);
      expect(mistake?.example).toBe(VARIABLES[name].example);
      if (VARIABLES[name].secret === true) expect(mistake?.received).toBe('[redacted]');
      else expect(mistake?.received).toBe(JSON.stringify(value));
      const { message } = errorOf({ ...GOOD, [name]: value });
      for (const part of [name, mistake?.received, mistake?.expected, mistake?.example])
        expect(message).toContain(part);
    },
  );

  test('every variable that can be wrong is in the table above', () => {
    const anythingGoes = ['WEIXIN_APP_SECRET', 'WEIXIN_ACCOUNTS_FILE', 'ARCHIVE_OPEN_ID_KEY'];
    expect([...wrong.map(([name]) => name), ...anythingGoes].toSorted()).toEqual(Object.keys(VARIABLES).toSorted());
  });

  test('all mistakes are told at once', () => {
    const names = namesOf(
      {
        REDIS_URL: 'http://x',
        WORKER_CONCURRENCY: 'many',
        LOG_LEVEL: 'loud',
        ARCHIVE_PART_SIZE: '1MiB',
        WEIXIN_APP_ID: 'wx1',
        WORKER_THREADS: '8',
      },
      ['store'],
    );
    expect(names.toSorted()).toEqual([
      'ARCHIVE_BUCKET',
      'ARCHIVE_PART_SIZE',
      'LOG_LEVEL',
      'REDIS_URL',
      'WEIXIN_APP_ID',
      'WORKER_CONCURRENCY',
      'WORKER_THREADS',
    ]);
  });

  test('any set of wrong values is told, each variable once', () => {
    const someWrong = fc.uniqueArray(fc.constantFrom(...wrong), { minLength: 1, selector: ([name]) => name });
    fc.assert(
      fc.property(someWrong, (chosen) => {
        const env = { ...GOOD, ...Object.fromEntries(chosen.map(([name, values]) => [name, values[0] ?? ''])) };
        const told = namesOf(env).filter((name) => name !== 'ARCHIVE_OPEN_ID_KEY');
        expect(told.toSorted()).toEqual(chosen.map(([name]) => name).toSorted());
      }),
    );
  });

  test.each([
    ['the store', ['store'], {}, ['ARCHIVE_BUCKET']],
    ['the store, with an empty bucket', ['store'], { ARCHIVE_BUCKET: '' }, ['ARCHIVE_BUCKET']],
    ['the accounts', ['accounts'], {}, ['WEIXIN_APP_ID']],
    ['the accounts, with empty ones', ['accounts'], { WEIXIN_APP_ID: '', WEIXIN_APP_SECRET: '' }, ['WEIXIN_APP_ID']],
    ['both', ['store', 'accounts'], {}, ['WEIXIN_APP_ID', 'ARCHIVE_BUCKET']],
  ] as const)('a command that needs %s says what is missing', (_what, needs, env, expected) => {
    const mistakes = mistakesOf({ ...env }, [...needs]);
    expect(mistakes.map(({ variable }) => variable)).toEqual(expected);
    for (const { received } of mistakes) expect(received).toBe('nothing');
  });

  test('an AppSecret without an app, and an app without an AppSecret', () => {
    expect(namesOf({ WEIXIN_APP_ID: APP_ID })).toEqual(['WEIXIN_APP_SECRET']);
    expect(namesOf({ WEIXIN_APP_SECRET: APP_SECRET })).toEqual(['WEIXIN_APP_ID']);
  });

  test('replicas to wait for on a Cluster, which can not be waited for', () => {
    expect(namesOf({ REDIS_CLUSTER_NODES: 'a:1', REDIS_WAIT_REPLICAS: '1' })).toEqual(['REDIS_WAIT_REPLICAS']);
    expect(loadConfig({ REDIS_SENTINELS: 'a:1', REDIS_WAIT_REPLICAS: '1' }).redis.waitReplicas).toBe(1);
  });

  test('a prefix without a hash tag on a Cluster', () => {
    expect(namesOf({ REDIS_CLUSTER_NODES: 'a:1', QUEUE_PREFIX: 'media' })).toEqual(['QUEUE_PREFIX']);
    expect(loadConfig({ REDIS_CLUSTER_NODES: 'a:1', QUEUE_PREFIX: 'x{media}' }).redis.prefix).toBe('x{media}');
  });

  test('a port for the metrics that leaves none for the last of several processes', () => {
    expect(namesOf({ METRICS_PORT: '65533', WORKER_PROCESSES: '4' })).toEqual(['METRICS_PORT']);
    expect(mistakesOf({ METRICS_PORT: '65533', WORKER_PROCESSES: '4' })[0]?.expected).toMatch(/^65532 or less/);
    expect(loadConfig({ METRICS_PORT: '65532', WORKER_PROCESSES: '4' }).worker.metricsPort).toBe(65_532);
  });

  test('a memory budget below four parts, naming the least that would do', () => {
    const [mistake, ...more] = mistakesOf({ ARCHIVE_PART_SIZE: '100MiB' });
    expect(more).toEqual([]);
    expect(mistake).toMatchObject({ variable: 'WORKER_MEMORY_BUDGET', received: '"256MiB"', example: '400MiB' });
    expect(loadConfig({ ARCHIVE_PART_SIZE: '100MiB', WORKER_MEMORY_BUDGET: '400MiB' })).toBeDefined();
  });
});

describe('names that nobody knows', () => {
  test.each([
    ['ARCHIVE_BUKET', 'ARCHIVE_BUCKET'],
    ['WEIXIN_APPID', 'WEIXIN_APP_ID'],
    ['WEIXIN_APP_SECRT', 'WEIXIN_APP_SECRET'],
    ['WORKER_CONCURENCY', 'WORKER_CONCURRENCY'],
  ])('%s is refused; did you mean %s?', (name, meant) => {
    const [mistake] = mistakesOf({ [name]: 'x' });
    expect(mistake?.variable).toBe(name);
    expect(mistake?.expected).toContain(`did you mean ${meant}?`);
  });

  test('a name like nothing of ours gets no suggestion', () => {
    const [mistake] = mistakesOf({ WORKER_QQQQQQQQQQQQQQQQ: 'x' });
    expect(mistake?.expected).not.toContain('did you mean');
  });

  test('the push of the one account belongs to it, and its key to its token', () => {
    const key = 'k'.repeat(43);
    const { accounts } = loadConfig({ ...GOOD, WEIXIN_PUSH_TOKEN: 'token', WEIXIN_PUSH_AES_KEY: key });
    const push = accounts[0]?.push;
    expect(push?.type === 'signed' && push.settings.encodingAesKey?.reveal()).toBe(key);
    expect(push?.type === 'signed' && push.settings.mustBeEncrypted).toBe(false);
    for (const mode of ['compatible', 'safe']) {
      const env = { ...GOOD, WEIXIN_PUSH_TOKEN: 'token', WEIXIN_PUSH_MODE: mode };
      const [account] = loadConfig({ ...env, WEIXIN_PUSH_AES_KEY: key }).accounts;
      expect(account?.push?.type === 'signed' && account.push.settings.mustBeEncrypted).toBe(true);
      expect(namesOf(env)).toEqual(['WEIXIN_PUSH_AES_KEY']);
    }
    expect(loadConfig(GOOD).accounts[0]).not.toHaveProperty('push');
    expect(namesOf({ ...GOOD, WEIXIN_PUSH_AES_KEY: key })).toEqual(['WEIXIN_PUSH_TOKEN']);
    expect(namesOf({ WEIXIN_PUSH_TOKEN: 'token' })).toEqual(['WEIXIN_APP_ID']);
  });

  test('the value behind an unknown name is not shown: it may be a secret that was misspelt', () => {
    expect(inspect(errorOf({ WEIXIN_APP_SECRT: APP_SECRET }), { depth: 9 })).not.toContain(APP_SECRET);
  });

  test('names of others are left alone', () => {
    expect(loadConfig({ PATH: '/bin', AWS_PROFILE: 'x', REDIS_PASSWORD: 'x', HOME: '/' })).toBeDefined();
  });
});

describe('secrets', () => {
  const PASSWORD = 'hunter2-hunter2-hunter2';

  test.each([
    ['a good REDIS_URL', { REDIS_URL: `redis://user:${PASSWORD}@127.0.0.1` }],
    ['a good AppSecret', { WEIXIN_APP_ID: APP_ID, WEIXIN_APP_SECRET: PASSWORD }],
    ['a good key for openIds', { ARCHIVE_OPEN_ID_KEY: PASSWORD }],
  ] as const)('%s is not printed with the configuration', (_what, env) => {
    const config = loadConfig({ ...env });
    expect(inspect(config, { depth: 9, showHidden: true })).not.toContain(PASSWORD);
    expect(JSON.stringify(config)).not.toContain(PASSWORD);
  });

  test.each([
    ['a REDIS_URL of another protocol', { REDIS_URL: `http://:${PASSWORD}@127.0.0.1` }],
    ['a REDIS_URL that is no address', { REDIS_URL: `redis//:${PASSWORD}@127.0.0.1` }],
    ['a REDIS_URL whose password is badly encoded', { REDIS_URL: `redis://:${PASSWORD}%@127.0.0.1` }],
    ['a key for openIds that is too short', { ARCHIVE_OPEN_ID_KEY: PASSWORD.slice(0, 15) }],
    ['an AppSecret whose app is missing', { WEIXIN_APP_SECRET: PASSWORD }],
    ['an AppSecret whose app is wrong', { WEIXIN_APP_ID: 'wx1', WEIXIN_APP_SECRET: PASSWORD }],
    ['the password of Sentinels', { REDIS_SENTINELS: `redis://:${PASSWORD}@a:26379` }],
    ['the password of Cluster nodes', { REDIS_CLUSTER_NODES: `redis://user:${PASSWORD}@a:6379,b:6379` }],
    ['the password of an API host', { WEIXIN_API_BASE_URL: `ftp://user:${PASSWORD}@a` }],
  ] as const)('%s is not printed with the mistake', (_what, env) => {
    const error = errorOf({ ...env });
    const printed = inspect(error, { depth: 9, showHidden: true }) + JSON.stringify(error.mistakes) + error.stack;
    expect(printed).not.toContain(PASSWORD.slice(0, 15));
    expect(error.mistakes.map(({ variable }) => variable)).toContain(
      'WEIXIN_APP_SECRET' in env ? 'WEIXIN_APP_ID' : Object.keys(env)[0],
    );
  });

  test('no wrong value of a secret variable is ever printed', () => {
    const secretNames = Object.entries(VARIABLES).flatMap(([name, { secret }]) => (secret === true ? [name] : []));
    expect(secretNames.toSorted()).toEqual([
      'API_TOKENS',
      'ARCHIVE_OPEN_ID_KEY',
      'REDIS_URL',
      'WEIXIN_APP_SECRET',
      'WEIXIN_PUSH_AES_KEY',
      'WEIXIN_PUSH_TOKEN',
    ]);
    const marked = fc.string({ maxLength: 10 }).map((text) => `s3cr${text}`);
    fc.assert(
      fc.property(fc.constantFrom(...secretNames), marked, (name, value) => {
        const { message } = errorOf({ [name]: value });
        expect(message).not.toContain('s3cr');
      }),
    );
  });
});

describe('openIds', () => {
  const KEY = '0123456789abcdef';

  test.each([
    [{}, { type: 'none' }],
    [{ ARCHIVE_OPEN_ID: 'plain' }, { type: 'plain' }],
    [{ ARCHIVE_OPEN_ID: 'none', ARCHIVE_OPEN_ID_KEY: KEY }, { type: 'none' }],
    [{ ARCHIVE_OPEN_ID_KEY: KEY }, { type: 'hmac', key: new Secret(KEY) }],
    [
      { ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: KEY },
      { type: 'hmac', key: new Secret(KEY) },
    ],
  ] as const)('%o gives the policy %o', (env, expected) => {
    const { openId } = loadConfig({ ...env }).media;
    expect(openId.type).toBe(expected.type);
    if (openId.type === 'hmac') expect(openId.key.reveal()).toBe(KEY);
  });

  test.each([
    [{ ARCHIVE_OPEN_ID: 'hmac' }, 'nothing'],
    [{ ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: 'short' }, '[redacted]'],
  ] as const)('pseudonyms with %o are one mistake', (env, received) => {
    const mistakes = mistakesOf({ ...env });
    expect(mistakes).toHaveLength(1);
    expect(mistakes[0]).toMatchObject({ variable: 'ARCHIVE_OPEN_ID_KEY', received });
  });
});

describe('the accounts file', () => {
  test('many accounts, their secrets by reference', () => {
    const secretPath = fileOf(`${APP_SECRET}-of-the-file\n`);
    const path = fileOf({
      accounts: [
        { appId: APP_ID, credential: { type: 'stable_token', secret: { env: 'WORKER_SHOP_SECRET' } } },
        { appId: OTHER_APP_ID, credential: { type: 'token', secret: { file: secretPath } } },
      ],
    });
    // A name that begins like ours is known because the file refers to it.
    const { accounts } = loadConfig({ WEIXIN_ACCOUNTS_FILE: path, WORKER_SHOP_SECRET: APP_SECRET }, ['accounts']);
    const secretOf = ({ credential }: Account): string | false => 'secret' in credential && credential.secret.reveal();
    expect(accounts.map((account) => [account.appId, account.credential.type, secretOf(account)])).toEqual([
      [APP_ID, 'stable_token', APP_SECRET],
      [OTHER_APP_ID, 'token', `${APP_SECRET}-of-the-file`],
    ]);
  });

  test('the one account and those of the file are served together, unless both have the same', () => {
    const of = (appId: string): string =>
      fileOf({ accounts: [{ appId, credential: { type: 'stable_token', secret: { env: 'S' } } }] });
    const { accounts } = loadConfig({ ...GOOD, WEIXIN_ACCOUNTS_FILE: of(OTHER_APP_ID), S: 'x' });
    expect(accounts.map(({ appId }) => appId)).toEqual([APP_ID, OTHER_APP_ID]);
    expect(namesOf({ ...GOOD, WEIXIN_ACCOUNTS_FILE: of(APP_ID), S: 'x' })).toEqual(['WEIXIN_APP_ID']);
  });

  const account = (fields: object): object => ({ accounts: [{ appId: APP_ID, ...fields }] });
  const INLINE = 'the-secret-itself';

  test.each([
    ['is not there', undefined, /ENOENT/],
    ['is no JSON', `{"secret": "${INLINE}"`, /JSON/],
    ['is another document', [INLINE], /: file: .*expected object/],
    [
      'has a secret inline',
      account({ credential: { type: 'stable_token', secret: INLINE } }),
      /never the value itself/,
    ],
    ['has an unknown kind', account({ credential: { type: INLINE, secret: { env: 'S' } } }), /a credential type is/],
    [
      'has an unknown field',
      account({ credential: { type: 'token', secret: { env: 'S' }, extra: INLINE } }),
      /accounts\.0\.credential/,
    ],
    [
      'refers to a variable that is not set',
      account({ credential: { type: 'token', secret: { env: 'NOT_SET' } } }),
      /NOT_SET is not set/,
    ],
    [
      'refers to a file that is not there',
      account({ credential: { type: 'token', secret: { file: '/no/such/file' } } }),
      /\/no\/such\/file can't be read \(ENOENT\)/,
    ],
    [
      'has an app twice',
      {
        accounts: [1, 2].map(() => ({ appId: APP_ID, credential: { type: 'token', secret: { env: 'S' } } })),
      },
      /is there twice/,
    ],
    ['has a wrong app', { accounts: [{ appId: 'wx1', credential: { type: 'token', secret: { env: 'S' } } }] }, /appId/],
  ])('a file that %s is one mistake without what it says', (_what, content, expected) => {
    const path = content === undefined ? join(folder, 'missing.json') : fileOf(content);
    const mistakes = mistakesOf({ WEIXIN_ACCOUNTS_FILE: path, S: APP_SECRET }, ['accounts']);
    expect(mistakes).toHaveLength(1);
    expect(mistakes[0]).toMatchObject({ variable: 'WEIXIN_ACCOUNTS_FILE', received: JSON.stringify(path) });
    expect(mistakes[0]?.expected).toMatch(expected);
    expect(JSON.stringify(mistakes)).not.toContain(INLINE);
    expect(JSON.stringify(mistakes)).not.toContain(APP_SECRET);
  });

  const cloud = (fields: object): object => account({ credential: { type: 'cloud', ...fields } });
  const service = (fields: object): object =>
    account({ credential: { type: 'external', url: 'https://tokens.internal/wx', ...fields } });
  const components = [
    {
      appId: OTHER_APP_ID,
      secret: { env: 'S' },
      push: { token: { env: 'S' }, encodingAesKey: { env: 'AES_KEY' } },
    },
  ];
  const env = { S: APP_SECRET, AES_KEY: 'a'.repeat(43), TWO_LINES: `${APP_SECRET}\n${APP_SECRET}` };

  function credentialOf(content: object): Credential | undefined {
    return loadConfig({ WEIXIN_ACCOUNTS_FILE: fileOf(content), ...env }, ['accounts']).accounts[0]?.credential;
  }

  test('a token service has a path of its own by default, secrets in headers, and may be told', () => {
    expect(credentialOf(service({}))).toEqual({
      type: 'external',
      source: { url: new URL('https://tokens.internal/wx'), headers: {}, path: ['access_token'] },
    });
    const invalidate = { url: 'https://tokens.internal/wx/invalid' };
    const headers = { Authorization: { env: 'S' }, 'X-Team': 'archive' };
    const full = credentialOf(service({ headers, path: 'data.access_token', invalidate }));
    expect(full).toMatchObject({
      source: { path: ['data', 'access_token'], invalidate: { url: new URL(invalidate.url), method: 'POST' } },
    });
    const { source } = full as ExternalCredential;
    const shown = 'headers' in source ? source.headers : {};
    expect(Object.entries(shown).map(([name, value]) => [name, value.reveal()])).toEqual([
      ['authorization', APP_SECRET],
      ['x-team', 'archive'],
    ]);
    expect(inspect(full, { depth: 9 })).not.toContain(APP_SECRET);
  });

  test.each([
    ['a plain string', {}, { redisKey: 'wx:token' }],
    ['JSON', { path: 'token' }, { redisKey: 'wx:token', path: ['token'] }],
  ])('a token may lie in Redis as %s', (_what, fields, source) => {
    const content = account({ credential: { type: 'external', redisKey: 'wx:token', ...fields } });
    expect(credentialOf(content)).toEqual({ type: 'external', source });
  });

  test('Cloud Run names the app where several share an environment, and reads the token where WeChat puts it', () => {
    const tokenFile = '/.tencentcloudbase/wx/cloudbase_access_token';
    const alone = { type: 'cloud', mode: 'sidecar', namesApp: false, tokenFile };
    expect(credentialOf(cloud({ mode: 'sidecar' }))).toEqual(alone);
    expect(credentialOf(cloud({ mode: 'sidecar', fromAppId: true }))).toEqual({ ...alone, namesApp: true });
    expect(credentialOf(cloud({ mode: 'token-file', tokenFile: './token' }))).toMatchObject({ tokenFile: './token' });
    const two = [APP_ID, OTHER_APP_ID].map((appId, index) => ({
      appId,
      credential: { type: 'cloud', mode: 'token-file', ...(index === 0 ? {} : { fromAppId: false }) },
    }));
    const { accounts } = loadConfig({ WEIXIN_ACCOUNTS_FILE: fileOf({ accounts: two }) });
    expect(accounts.map(({ credential }) => credential.type === 'cloud' && credential.namesApp)).toEqual([true, false]);
  });

  test('an authorizer has its platform, and a refresh token only where one was had elsewhere', () => {
    const credential = { type: 'authorizer', component: OTHER_APP_ID };
    const file = (fields: object): object => ({ ...account({ credential: { ...credential, ...fields } }), components });
    const known = credentialOf(file({ refreshToken: { env: 'S' } })) as AuthorizerCredential;
    expect(known.component).toMatchObject({ appId: OTHER_APP_ID, push: { mustBeEncrypted: true } });
    expect(known.refreshToken?.reveal()).toBe(APP_SECRET);
    expect(credentialOf(file({}))).not.toHaveProperty('refreshToken');
  });

  const signed = (fields: object): object =>
    account({ credential: { type: 'token', secret: { env: 'S' } }, push: { token: { env: 'S' }, ...fields } });

  test.each([
    ['in plaintext', {}, false],
    ['with a key, but not always encrypted', { encodingAesKey: { env: 'AES_KEY' } }, false],
    ['always encrypted', { encodingAesKey: { env: 'AES_KEY' }, mode: 'safe' }, true],
  ])('pushes may be signed, %s', (_what, fields, mustBeEncrypted) => {
    const { accounts } = loadConfig({ WEIXIN_ACCOUNTS_FILE: fileOf(signed(fields)), ...env });
    expect(accounts[0]?.push).toMatchObject({ type: 'signed', settings: { mustBeEncrypted } });
  });

  test('pushes of Cloud Run are not signed', () => {
    const content = cloud({ mode: 'sidecar' }) as { accounts: object[] };
    const accounts = content.accounts.map((one) => ({ ...one, push: { cloud: true } }));
    expect(loadConfig({ WEIXIN_ACCOUNTS_FILE: fileOf({ accounts }) }).accounts[0]?.push).toEqual({ type: 'cloud' });
  });

  test.each([
    ['a token service and a key in Redis', service({ redisKey: 'x' }), /either url or redisKey/],
    ['neither of them', account({ credential: { type: 'external' } }), /either url or redisKey/],
    ['headers for Redis', account({ credential: { type: 'external', redisKey: 'x', headers: {} } }), /belong to url/],
    ['an address that is none', service({ url: `tokens/${INLINE}` }), /url: an http:\/\/ or https:\/\/ address/],
    ['another protocol', service({ url: `ftp://${INLINE}` }), /url: an http:\/\/ or https:\/\/ address/],
    ['a secret in the address', service({ url: `https://a/?x=1&api_key=${INLINE}` }), /url: .*put that into headers/],
    ['a password in the address', service({ url: `https://user:${INLINE}@a/` }), /url: .*put that into headers/],
    [
      'a secret in the other address',
      service({ invalidate: { url: `https://a/?Signature=${INLINE}` } }),
      /invalidate\.url: .*put that into headers/,
    ],
    ['a secret in a header', service({ headers: { 'X-Api-Key': INLINE } }), /headers: .*never the value itself/],
    ['a header that is neither', service({ headers: { 'X-A': 7 } }), /headers\.X-A: .*never the value itself/],
    ['a header that is none', service({ headers: { 'X A': 'x' } }), /headers: names of headers/],
    ['a header of the connection', service({ headers: { Connection: 'close' } }), /headers: names of headers/],
    ['a header twice', service({ headers: { 'X-A': 'x', 'x-a': 'y' } }), /headers: names of headers/],
    ['a header of two lines', service({ headers: { 'X-A': { env: 'TWO_LINES' } } }), /headers\.X-A: .*one line/],
    ['an empty path', service({ path: 'data..token' }), /path: names separated by dots/],
    ['a method that is none', service({ invalidate: { url: 'https://a', method: 'HEAD' } }), /invalidate\.method/],
    ['no mode', cloud({}), /a mode is "sidecar" or "token-file"/],
    ['a token file for the sidecar', cloud({ mode: 'sidecar', tokenFile: 'x' }), /belongs to the mode token-file/],
    [
      'a platform that is not there',
      account({ credential: { type: 'authorizer', component: OTHER_APP_ID } }),
      /component: wxfedcba9876543210 is not among the components/,
    ],
    [
      'an app that is a platform too',
      { accounts: [{ appId: OTHER_APP_ID, credential: { type: 'token', secret: { env: 'S' } } }], components },
      /is there twice/,
    ],
    ['a push that is none', signed({ token: INLINE }), /push: a push is \{ "token", "encodingAesKey" \} by reference/],
    ['a key of another length', signed({ encodingAesKey: { env: 'S' } }), /an EncodingAESKey is 43 characters/],
    ['no key for encrypted pushes', signed({ mode: 'safe' }), /encodingAesKey: is missing, since the mode is safe/],
  ])('%s is one mistake, without what it says', (_what, content, expected) => {
    const mistakes = mistakesOf({ WEIXIN_ACCOUNTS_FILE: fileOf(content), ...env });
    expect(mistakes).toHaveLength(1);
    expect(mistakes[0]?.expected).toMatch(expected);
    expect(JSON.stringify(mistakes)).not.toContain(INLINE);
    expect(JSON.stringify(mistakes)).not.toContain(APP_SECRET);
  });

  test('all mistakes about secrets are told at once', () => {
    const accounts = [
      { appId: APP_ID, credential: { type: 'token', secret: { env: 'NOT_SET' } } },
      {
        appId: OTHER_APP_ID,
        credential: { type: 'token', secret: { env: 'S' } },
        push: { token: { env: 'NOT_SET_EITHER' }, encodingAesKey: { env: 'S' } },
      },
    ];
    const said = mistakesOf({ WEIXIN_ACCOUNTS_FILE: fileOf({ accounts }), ...env }).map(({ expected }) => expected);
    expect(said.map((text) => /(NOT_SET\w*|EncodingAESKey)/.exec(text)?.[0])).toEqual([
      'NOT_SET',
      'EncodingAESKey',
      'NOT_SET_EITHER',
    ]);
  });

  test('an empty list of accounts is not enough for a worker', () => {
    expect(namesOf({ WEIXIN_ACCOUNTS_FILE: fileOf({ accounts: [] }) }, ['accounts'])).toEqual(['WEIXIN_APP_ID']);
  });
});

test('an accounts file that stands in its variable is refused, and its secrets are not repeated', () => {
  const document = '{"accounts":[{"appId":"wx0123456789abcdef","credential":{"secret":"the-secret"}}]}';
  let said = '';
  try {
    loadConfig({ WEIXIN_ACCOUNTS_FILE: document }, []);
  } catch (error) {
    said = String(error);
  }
  expect(said).toContain('WEIXIN_ACCOUNTS_FILE');
  expect(said).not.toContain('the-secret');
});

describe('the guard of HTTP', () => {
  const token = 'a-token-that-must-not-leak';

  test.each(['0.0.0.0', '::', '192.168.1.2', 'example.com'])('tokens are needed to listen on %s', (host) => {
    const [mistake, ...more] = mistakesOf({ HTTP_HOST: host }, ['guard']);
    expect(more).toEqual([]);
    expect(mistake).toMatchObject({ variable: 'API_TOKENS', expected: expect.stringContaining(host) });
    expect(loadConfig({ HTTP_HOST: host, API_TOKENS: token }, ['guard']).ingest.tokens).toHaveLength(1);
    // Who does not listen there does not care.
    expect(loadConfig({ HTTP_HOST: host }).ingest.host).toBe(host);
  });

  test.each(['127.0.0.1', '127.3.2.1', '::1', 'localhost'])('none are needed to listen on %s', (host) => {
    expect(loadConfig({ HTTP_HOST: host }, ['guard']).ingest).toMatchObject({ host, tokens: [] });
  });

  test('a wrong list of tokens is told without them', () => {
    const error = errorOf({ HTTP_HOST: '0.0.0.0', API_TOKENS: `all:${token}` }, ['guard']);
    expect(error.mistakes).toMatchObject([{ variable: 'API_TOKENS', received: '[redacted]' }]);
    expect(inspect(error)).not.toContain(token);
  });
});
