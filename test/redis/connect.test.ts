import { inspect } from 'node:util';
import { Cluster, Redis } from 'ioredis';
import { afterEach, beforeEach, describe, expect, inject, test } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import {
  closeRedis,
  connectRedis,
  DatabaseRefusedError,
  describeRedis,
  type Patience,
  type RedisClient,
  type RedisConfig,
  untilReady,
} from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import { eventually } from '../support/eventually.ts';
import { openOwnRedis } from '../support/own-redis.ts';

const PASSWORD = 'p@ss/word:1';
let parts: AsyncDisposableStack;

beforeEach(() => {
  parts = new AsyncDisposableStack();
});

afterEach(() => parts.disposeAsync());

function configOf(url: string, more: Partial<RedisConfig> = {}): RedisConfig {
  return { url: new Secret(url), prefix: '{x}', sentinelMaster: 'mymaster', ...more };
}

function connect(config: RedisConfig, patience: Patience = 'patient', errors: Error[] = []): RedisClient {
  const client = connectRedis(config, patience, 'test', (error) => void errors.push(error));
  parts.defer(() => closeRedis(client));
  return client;
}

function single(client: RedisClient): Redis {
  if (!(client instanceof Redis)) throw new Error('a connection to a Cluster');
  return client;
}

describe('a database that is not there', () => {
  test.each<Patience>(['patient', 'hasty', 'blocking'])(
    'is refused, and no other is used in its place: %s',
    async (patience) => {
      const url = inject('redisUrl');
      const errors: Error[] = [];
      const client = connect(configOf(`${url}/99`), patience, errors);
      await expect(untilReady(client, AbortSignal.timeout(20_000))).rejects.toThrow(DatabaseRefusedError);
      await expect(untilReady(client, AbortSignal.timeout(20_000))).rejects.toThrow('DB index is out of range');
      await expect(client.set('{x}:nobody-looks-here', '1')).rejects.toThrow();
      expect(await connect(configOf(url)).exists('{x}:nobody-looks-here')).toBe(0);
    },
  );

  test('is told from one that is there', async () => {
    const client = connect(configOf(`${inject('redisUrl')}/15`));
    await untilReady(client, AbortSignal.timeout(20_000));
    expect(await client.client('INFO')).toContain('db=15');
  });
});

describe('an address', () => {
  const encoded = encodeURIComponent(PASSWORD);

  test.each([
    ['redis://127.0.0.1:1', { host: '127.0.0.1', port: 1, db: 0 }],
    ['redis://[::1]:2/7', { host: '::1', port: 2, db: 7 }],
    ['redis://localhost', { host: 'localhost', port: 6379, db: 0 }],
    [`redis://us%20er:${encoded}@127.0.0.1:1`, { username: 'us er', password: PASSWORD }],
    [`redis://:${encoded}@127.0.0.1:1`, { password: PASSWORD }],
    ['rediss://127.0.0.1:1', { tls: { servername: '127.0.0.1' } }],
  ])('%s is taken apart', (url, expected) => {
    expect(single(connect(configOf(url))).options).toMatchObject(expected);
  });

  test('without user and password none are sent', () => {
    const { username, password, tls } = single(connect(configOf('redis://127.0.0.1:1'))).options;
    expect([username, password, tls]).toEqual([
      expect.toSatisfy((value) => !value),
      expect.toSatisfy((value) => !value),
      undefined,
    ]);
  });

  test('Sentinels are asked for the master by its name, with user and password of the address', () => {
    const sentinels = [{ host: '127.0.0.1', port: 1 }];
    const { options } = single(
      connect(configOf(`redis://:${encoded}@ignored:9/3`, { sentinels, sentinelMaster: 'm' })),
    );
    expect(options).toMatchObject({ sentinels, name: 'm', password: PASSWORD, role: 'master' });
  });

  test('the database of the address is the one that Sentinels lead to', () => {
    const sentinels = [{ host: '127.0.0.1', port: 1 }];
    expect(single(connect(configOf('redis://ignored/3', { sentinels }))).options.db).toBe(3);
  });

  test('Cluster nodes make a Cluster, with user and password of the address', () => {
    const clusterNodes = [{ host: '127.0.0.1', port: 1 }];
    const client = connect(configOf(`rediss://user:${encoded}@ignored`, { clusterNodes }), 'hasty');
    if (!(client instanceof Cluster)) throw new Error('not a Cluster');
    expect(client.options).toMatchObject({
      enableOfflineQueue: false,
      redisOptions: { username: 'user', password: PASSWORD, tls: {} },
    });
  });
});

describe('what is told of a connection', () => {
  test.each([
    [configOf(`redis://user:${encodeURIComponent(PASSWORD)}@redis.example.com:7/1`), 'redis.example.com:7'],
    [configOf('redis://redis.example.com'), 'redis.example.com:6379'],
    [
      configOf('redis://:secret@x', {
        sentinels: [
          { host: 'a', port: 1 },
          { host: 'b', port: 2 },
        ],
      }),
      'a:1,b:2',
    ],
    [configOf('redis://:secret@x', { clusterNodes: [{ host: 'c', port: 3 }] }), 'c:3'],
  ])('%# is named without user and password', (config, expected) => {
    expect(describeRedis(config)).toBe(expected);
  });

  test('an error of the connection does not hold the password that was refused', async () => {
    const own = parts.use(await openOwnRedis());
    await own.lock('the-right-password');
    const errors: Error[] = [];
    connect(configOf(own.as(':wrong-password')), 'patient', errors);
    const error = await eventually(() => errors.find(({ message }) => message.includes('WRONGPASS')));
    expect(inspect(error, { depth: 9, showHidden: true })).not.toContain('wrong-password');
  });
});

test('an error of a Redis that does not know HELLO or AUTH does not repeat what it was given', async () => {
  await using own = await openOwnRedis({
    arguments: ['--rename-command', 'HELLO', 'hidden1', '--rename-command', 'AUTH', 'hidden2'],
  });
  const errors: Error[] = [];
  const client = connect(configOf(own.as('app:a-password')), 'patient', errors);
  await eventually(() => (errors.length > 0 ? true : undefined));
  expect(errors[0]?.message).toMatch(/unknown command/);
  expect(inspect(errors)).not.toContain('a-password');
  client.disconnect();
});

test('an error of a Cluster that refuses the password does not hold it', async () => {
  await using own = await openOwnRedis({ arguments: ['--cluster-enabled', 'yes'] });
  await own.lock('another');
  const errors: Error[] = [];
  const { port } = new URL(own.url);
  const clusterNodes = [{ host: '127.0.0.1', port: Number(port) }];
  const client = connect(configOf(own.as('app:a-password'), { clusterNodes }), 'patient', errors);
  await eventually(() => (errors.length > 0 ? true : undefined));
  expect(inspect(errors, { depth: 9, showHidden: true })).not.toContain('a-password');
  client.disconnect();
});

describe('while Redis is away', () => {
  test('commands of a hasty connection fail at once, those of a patient one wait until it is there', async () => {
    const port = await freePort();
    const config = configOf(`redis://127.0.0.1:${port}`);
    const hasty = connect(config, 'hasty');
    await expect(hasty.ping()).rejects.toThrow();
    const waiting = connect(config).ping();

    parts.use(await openOwnRedis({ port }));
    expect(await waiting).toBe('PONG');
    await untilReady(hasty, AbortSignal.timeout(30_000));
    expect(await hasty.ping()).toBe('PONG');
  });

  test('a command that a patient connection had sent when Redis went away is answered after its return', async () => {
    const own = parts.use(await openOwnRedis());
    const client = connect(configOf(own.url));
    await client.set('key', 'before');
    own.freeze();
    const waiting = client.get('key');
    own.thaw();
    expect(await waiting).toBe('before');
  });

  test('waiting for a connection ends with the reason of the signal, and leaves no listener', async () => {
    const client = connect(configOf(`redis://127.0.0.1:${await freePort()}`));
    const listeners = client.listenerCount('ready');
    const controller = new AbortController();
    const waiting = untilReady(client, controller.signal);
    controller.abort(new Error('stop'));
    await expect(waiting).rejects.toThrow('stop');
    await expect(untilReady(client, controller.signal)).rejects.toThrow('stop');
    expect(client.listenerCount('ready')).toBe(listeners);
  });

  test('a blocking command that a frozen Redis never answers ends with nothing', async () => {
    const own = parts.use(await openOwnRedis());
    const client = connect(configOf(own.url), 'blocking');
    await client.ping();
    own.freeze();
    expect(await client.bzpopmin('nothing', 0.1)).toBeNull();
  });

  test.each<Patience>(['patient', 'hasty', 'blocking'])(
    'closing a %s connection ends, whether Redis is gone or frozen',
    async (patience) => {
      await closeRedis(connect(configOf(`redis://127.0.0.1:${await freePort()}`), patience));
      const own = parts.use(await openOwnRedis());
      const client = connect(configOf(own.url), patience);
      await untilReady(client, AbortSignal.timeout(30_000));
      own.freeze();
      await closeRedis(client);
      await eventually(() => (client.status === 'end' ? true : undefined));
    },
  );
});

test('closing lets commands that were sent come back first', async () => {
  const client = connect(configOf(inject('redisUrl')));
  await untilReady(client, AbortSignal.timeout(30_000));
  const answer = client.echo('last words');
  await closeRedis(client);
  expect(await answer).toBe('last words');
});

test('a connection shows its name to Redis', async () => {
  const client = connect(configOf(inject('redisUrl')));
  expect(await client.call('CLIENT', 'GETNAME')).toBe('test');
});
