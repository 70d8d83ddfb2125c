import { writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import { startTokenService } from '../../src/demo/weixin/token-service.ts';
import { closeRedis, connectRedis } from '../../src/redis/connect.ts';
import { redisKeys } from '../../src/redis/keys.ts';
import { Secret } from '../../src/secret.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { APP_ID, APP_SECRET, OTHER_APP_ID } from '../support/jobs.ts';
import { type OwnRedis, openOwnRedis } from '../support/own-redis.ts';
import { type Environment, keysBelow, openStack, type Stack } from '../support/stack.ts';
import { askToken } from '../support/weixin.ts';

const CLOUD_APP_ID = 'wx00000000000000c1';

let parts: AsyncDisposableStack;
let stack: Stack;
let redis: OwnRedis;

beforeAll(async () => {
  parts = new AsyncDisposableStack();
  stack = parts.use(await openStack({ env: COMPILE_CACHE }));
  redis = parts.use(await openOwnRedis());
});

afterAll(() => parts.disposeAsync());

interface Examination {
  readonly code: number;
  readonly stdout: string;
  /** The findings of one check. */
  of(check: string): Record<string, unknown>[];
  /** The names of the checks that ended so. */
  with(result: 'ok' | 'warn' | 'fail'): unknown[];
}

async function examine(env: Environment = {}): Promise<Examination> {
  const result = await stack.command(['doctor', '--json'], { env: { REDIS_URL: redis.url, ...env } });
  expect(result.stderr).toBe('');
  const rows = result.rows();
  return {
    code: result.code,
    stdout: result.stdout,
    of: (check) => rows.filter((row) => row['check'] === check),
    with: (wanted) => rows.filter(({ result: found }) => found === wanted).map(({ check }) => check),
  };
}

/** An S3 server that refuses everybody: no embedded one does. */
async function openDeniedStore(): Promise<{ readonly endpoint: string } & AsyncDisposable> {
  const server = createServer((_request, response) => {
    response
      .writeHead(403, { 'content-type': 'application/xml' })
      .end('<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>');
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  return {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    [Symbol.asyncDispose]: async () => {
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      server.closeAllConnections();
      await closed.promise;
    },
  };
}

test('where a worker can work it says so of Redis, the bucket and each account, and leaves nothing behind', async () => {
  const { code, of, with: having } = await examine();
  expect(code).toBe(0);
  expect(having('fail')).toEqual([]);
  expect(of('redis')).toEqual([
    {
      check: 'redis',
      result: 'ok',
      detail: expect.stringMatching(
        new RegExp(
          `:${redis.server.port}, version [\\d.]+, noeviction, AOF on, appendfsync everysec \\(.+\\), no memory`,
        ),
      ),
    },
  ]);
  for (const check of ['bucket', 'write', 'read', 'list', 'multipart', 'delete', `account ${APP_ID}`]) {
    expect(of(check)).toMatchObject([{ result: 'ok' }]);
  }
  // The embedded store checks neither, and doctor finds that out.
  expect(having('warn')).toEqual(['payload hash', 'create-only', 'lifecycle']);
  expect(await keysBelow(stack, '')).toEqual([]);
});

test('says the same in words for people, with what to do under each weakness', async () => {
  const { code, stdout, stderr } = await stack.command(['doctor'], { env: { REDIS_URL: redis.url } });
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const lines = stdout.trimEnd().split('\n');
  for (const line of lines) expect(line).toMatch(/^(ok {4}|warn {2}|fail {2}| {6})\S/);
  expect(lines.filter((line) => line.startsWith('warn'))).toHaveLength(
    lines.filter((line) => line.startsWith(' ')).length,
  );
});

describe('Redis', () => {
  test.each([
    ['without an append-only file', ['--appendonly', 'no'], /set appendonly to yes/],
    ['that evicts', ['--maxmemory-policy', 'allkeys-lru'], /set maxmemory-policy to noeviction/],
  ])('%s is a warning with what to set', async (_what, more, expected) => {
    await using weak = await openOwnRedis({ arguments: more });
    const { code, of } = await examine({ REDIS_URL: weak.url });
    expect(code).toBe(0);
    expect(of('redis')).toMatchObject([{ result: 'ok' }, { result: 'warn', detail: expect.stringMatching(expected) }]);
  });

  test('with a memory limit says how much of it is used', async () => {
    await using limited = await openOwnRedis({ arguments: ['--maxmemory', '64mb'] });
    const { of } = await examine({ REDIS_URL: limited.url });
    expect(of('redis')).toMatchObject([{ detail: expect.stringMatching(/ of 64\.0 MiB used$/) }]);
  });

  test('whose outbox nobody has written to the catalog for long is a warning', async () => {
    const { outbox } = redisKeys(stack.config.redis.prefix);
    const config = { url: new Secret(redis.url), prefix: '', sentinelMaster: '' };
    const client = connectRedis(config, 'patient', 'test', () => undefined);
    await client.xadd(outbox, `${Date.now() - 3_600_000}-0`, 't', 'media/1', 'r', '[]');
    const late = await examine();
    expect(late.of('catalog')).toMatchObject([
      { result: 'warn', detail: expect.stringMatching(/^1 entries wait .* for 60 min$/) },
    ]);
    await client.del(outbox);
    await closeRedis(client);
    expect((await examine()).of('catalog')).toEqual([]);
  });

  test('that is full fails, with what to do', async () => {
    await using full = await openOwnRedis({ arguments: ['--maxmemory', '1kb'] });
    // An account whose token is shared in that Redis.
    const accounts = join(stack.folder, 'accounts.json');
    const credential = { type: 'token', secret: { env: 'OTHER_SECRET' } };
    await writeFile(accounts, JSON.stringify({ accounts: [{ appId: OTHER_APP_ID, credential }] }));
    const env = { REDIS_URL: full.url, WEIXIN_ACCOUNTS_FILE: accounts, OTHER_SECRET: 'a-secret' };
    const { code, stdout, of } = await examine(env);
    expect(code).toBe(1);
    expect(of('redis')).toMatchObject([{ result: 'fail', hint: 'It takes no media. Raise its maxmemory.' }]);
    // Everything else is looked at all the same.
    expect(of('bucket')).toMatchObject([{ result: 'ok' }]);
    expect(of(`account ${OTHER_APP_ID}`)).toMatchObject([{ result: 'fail', detail: expect.stringContaining('OOM') }]);
    expect(stdout).not.toContain('a-secret');
    expect(await keysBelow(stack, '')).toEqual([]);
  });

  test('that is away, frozen or refuses the password fails, and everything else is looked at all the same', async () => {
    await using frozen = await openOwnRedis();
    frozen.freeze();
    await using locked = await openOwnRedis();
    await locked.lock('the-right-password');
    const found = await Promise.all([
      examine({ REDIS_URL: `redis://:the-wrong-password@127.0.0.1:${await freePort()}` }),
      examine({ REDIS_URL: frozen.as(':the-wrong-password') }),
      examine({ REDIS_URL: locked.as(':the-wrong-password') }),
    ]);
    for (const { code, of, stdout } of found) {
      expect(code).toBe(1);
      expect(of('redis')).toMatchObject([{ result: 'fail', hint: 'Check REDIS_URL.' }]);
      expect(of('bucket')).toMatchObject([{ result: 'ok' }]);
      expect(of(`account ${APP_ID}`)).toMatchObject([{ result: 'ok' }]);
      expect(stdout).not.toContain('password@');
      expect(stdout).not.toContain('the-wrong-password');
    }
  });
});

describe('the bucket', () => {
  test('that is not there, that nobody named, and that refuses us each fail with what to do', async () => {
    await using denied = await openDeniedStore();
    const [missing, unnamed, refused, away] = await Promise.all([
      examine({ ARCHIVE_BUCKET: 'no-such-bucket' }),
      examine({ ARCHIVE_BUCKET: '' }),
      examine({ AWS_ENDPOINT_URL_S3: denied.endpoint }),
      examine({ AWS_ENDPOINT_URL_S3: `http://127.0.0.1:${await freePort()}` }),
    ]);
    const expected: [Examination, RegExp, string][] = [
      [missing, /^store-bucket-missing/, 'ARCHIVE_BUCKET does not exist. Create it.'],
      [unnamed, /^ARCHIVE_BUCKET is not set$/, 'Set it.'],
      [refused, /^store-denied/, 'The S3 store refuses our credentials or rights. `doctor` tells which.'],
      [away, /^store-unreachable/, 'No answer from the S3 store. Check AWS_ENDPOINT_URL_S3 and the network.'],
    ];
    for (const [{ code, of }, detail, hint] of expected) {
      expect(code).toBe(1);
      expect(of('bucket')).toEqual([{ check: 'bucket', result: 'fail', detail: expect.stringMatching(detail), hint }]);
      expect(of('redis')).toMatchObject([{ result: 'ok' }]);
      expect(of(`account ${APP_ID}`)).toMatchObject([{ result: 'ok' }]);
    }
  });
});

describe('an account', () => {
  test('with a wrong secret fails with the errcode and what to do, without the secret', async () => {
    const wrong = 'a-wrong-secret-of-the-app';
    const { code, of, stdout } = await examine({ WEIXIN_APP_SECRET: wrong });
    expect(code).toBe(1);
    expect(of(`account ${APP_ID}`)).toEqual([
      {
        check: `account ${APP_ID}`,
        result: 'fail',
        detail: expect.stringMatching(/^app-secret-invalid \(40125 /),
        hint: 'WeChat does not accept the AppSecret of this app. Correct it.',
      },
    ]);
    expect(stdout).not.toContain(wrong);
  });

  test('that nobody configured, that WeChat does not know, and whose WeChat is away each fail', async () => {
    const unknown = 'wx00000000000000ff';
    const [none, stranger, away] = await Promise.all([
      examine({ WEIXIN_APP_ID: '', WEIXIN_APP_SECRET: '' }),
      examine({ WEIXIN_APP_ID: unknown }),
      examine({ WEIXIN_API_BASE_URL: `http://127.0.0.1:${await freePort()}` }),
    ]);
    expect(none.of('account')).toMatchObject([
      { result: 'fail', hint: expect.stringContaining('WEIXIN_ACCOUNTS_FILE') },
    ]);
    expect(stranger.of(`account ${unknown}`)).toMatchObject([
      { result: 'fail', detail: expect.stringMatching(/^app-id-invalid/) },
    ]);
    expect(away.of(`account ${APP_ID}`)).toMatchObject([
      { result: 'fail', detail: expect.stringMatching(/^weixin-unreachable/) },
    ]);
    for (const { code, stdout } of [none, stranger, away]) {
      expect(code).toBe(1);
      expect(stdout).not.toContain(APP_SECRET);
    }
  });

  test('of a token service or of Cloud Run is asked for by its own way, without changing anything', async () => {
    const password = 'Bearer the-password-of-the-service';
    await using services = new AsyncDisposableStack();
    const service = await startTokenService({
      password,
      fetchToken: async () => (await askToken(stack.simulator.url)).access_token,
    });
    services.defer(() => service.close());
    const cloudRun = stack.simulator.openCloudRun({ owner: CLOUD_APP_ID });
    stack.simulator.addApp({ appId: CLOUD_APP_ID, secret: 'of-nobody' });
    const tokenFile = join(stack.folder, 'cloudbase_access_token');
    await writeFile(tokenFile, cloudRun.token());
    const redisKey = `${stack.config.redis.prefix}:of-others`;
    await stack.redis.set(redisKey, 'a-token-in-redis');

    const fetched = { type: 'external', url: service.url, path: 'data.access_token' };
    const headers = { Authorization: { env: 'SERVICE_PASSWORD' } };
    const invalidate = { url: service.invalidateUrl };
    const accounts = [
      { appId: OTHER_APP_ID, credential: { ...fetched, headers, invalidate } },
      { appId: 'wx00000000000000a1', credential: { ...fetched, invalidate } },
      { appId: 'wx00000000000000a2', credential: { type: 'external', redisKey } },
      { appId: CLOUD_APP_ID, credential: { type: 'cloud', mode: 'sidecar', fromAppId: false } },
      { appId: 'wx00000000000000c2', credential: { type: 'cloud', mode: 'sidecar' } },
      { appId: 'wx00000000000000c3', credential: { type: 'cloud', mode: 'token-file', tokenFile } },
      { appId: 'wx00000000000000c4', credential: { type: 'cloud', mode: 'token-file', tokenFile: `${tokenFile}-2` } },
    ];
    const path = join(stack.folder, 'services.json');
    await writeFile(path, JSON.stringify({ accounts }));
    // Its keys lie in the Redis that the stack looks into.
    const env = {
      WEIXIN_ACCOUNTS_FILE: path,
      SERVICE_PASSWORD: password,
      REDIS_URL: stack.environment['REDIS_URL'] ?? '',
    };
    const { code, of, stdout } = await examine(env);
    const details = accounts.flatMap(({ appId }) => of(`account ${appId}`).map(({ detail }) => detail));
    expect(details).toEqual([
      'the token service gave an access_token (external)',
      'token-service-failed (HTTP 401)',
      'the token service gave an access_token (external)',
      'media/get is served without an access_token (cloud, sidecar)',
      expect.stringMatching(/^api-unauthorized \(48001 .* the environment is not shared with wx00000000000000c2\)$/),
      'a token lies in the file (cloud, token-file)',
      "cloud-call-not-ready (the token file can't be read (ENOENT))",
    ]);
    expect(code).toBe(1);
    expect(service.counts).toEqual({ asked: 1, told: 0, refused: 1 });
    for (const secret of [password, 'a-token-in-redis', cloudRun.token()]) expect(stdout).not.toContain(secret);

    // Of what lies elsewhere the state of Redis says nothing.
    const away = await examine({ ...env, REDIS_URL: `redis://127.0.0.1:${await freePort()}` });
    expect(away.of(`account ${OTHER_APP_ID}`)).toMatchObject([{ result: 'ok' }]);
    expect(away.of(`account ${CLOUD_APP_ID}`)).toMatchObject([{ result: 'ok' }]);
    expect(away.of('account wx00000000000000a2')).toMatchObject([{ detail: expect.stringContaining('Redis') }]);
  });

  test('shows neither the AppSecret nor the token that was issued', async () => {
    const { stdout } = await examine();
    expect(stdout).not.toContain(APP_SECRET);
    for (const token of stack.simulator.issuedTokens()) expect(stdout).not.toContain(token);
    expect(stack.simulator.issuedTokens()).not.toEqual([]);
  });
});
