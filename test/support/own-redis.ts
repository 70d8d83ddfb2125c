import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inject } from 'vitest';
import { freePort, type RedisServer, startRedisServer } from '../../src/demo/redis-server.ts';
import { closeRedis, connectRedis, untilReady } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';

/** Starts a Sentinel that knows a master by this name; resolves with its port. It ends with `parts`. */
export async function startSentinel(parts: AsyncDisposableStack, master: string, masterPort: number): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-sentinel-'));
  parts.defer(() => rm(directory, { recursive: true, force: true }));
  const port = await freePort();
  const settings = join(directory, 'sentinel.conf');
  await writeFile(settings, `bind 127.0.0.1\nport ${port}\nsentinel monitor ${master} 127.0.0.1 ${masterPort} 1\n`);
  const child = spawn(inject('redisExecutable'), [settings, '--sentinel'], { stdio: 'ignore', cwd: directory });
  const ended = once(child, 'exit');
  parts.defer(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  const url = new Secret(`redis://127.0.0.1:${port}`);
  const client = connectRedis({ url, prefix: '', sentinelMaster: '' }, 'patient', 'test', () => undefined);
  parts.defer(() => closeRedis(client));
  await untilReady(client, AbortSignal.timeout(30_000));
  return port;
}

/** A redis-server that is a Cluster of one node. */
export async function openOwnCluster(): Promise<OwnRedis> {
  // By default the port of its bus is 10,000 above its own, which may be none.
  const bus = String(await freePort());
  const own = await openOwnRedis({
    arguments: ['--cluster-enabled', 'yes', '--cluster-port', bus, '--cluster-announce-ip', '127.0.0.1'],
  });
  const config = { url: new Secret(own.url), prefix: '', sentinelMaster: '' };
  const client = connectRedis(config, 'patient', 'test', () => undefined);
  await client.call('CLUSTER', 'ADDSLOTSRANGE', '0', '16383');
  await closeRedis(client);
  return own;
}

/** A redis-server for one test, which may freeze it, fill it, lock it or stop it. */
export interface OwnRedis extends AsyncDisposable {
  readonly server: RedisServer;
  readonly url: string;
  /** The address with this user and password. */
  as(login: string): string;
  /** Makes it deaf, and lets it go on. */
  freeze(): void;
  thaw(): void;
  /** Asks for this password from now on. */
  lock(password: string): Promise<void>;
  /** Ends it, and starts it again at its address and on its data. */
  stop(): Promise<void>;
  start(): Promise<void>;
}

export interface OwnRedisOptions {
  readonly appendOnly?: boolean;
  /** Where it will be once it is started; absent: it is started at once. */
  readonly port?: number;
  readonly arguments?: readonly string[];
}

export async function openOwnRedis({ appendOnly = true, ...more }: OwnRedisOptions = {}): Promise<OwnRedis> {
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-own-redis-'));
  let server = await startRedisServer(inject('redisExecutable'), { directory, appendOnly, ...more });
  const { url, port } = server;
  const thaw = (): void => void server.process.kill('SIGCONT');
  return {
    get server() {
      return server;
    },
    url,
    as: (login) => url.replace('redis://', `redis://${login}@`),
    freeze: () => void server.process.kill('SIGSTOP'),
    thaw,
    lock: async (password) => {
      const config = { url: new Secret(url), prefix: '', sentinelMaster: '' };
      const client = connectRedis(config, 'patient', 'test', () => undefined);
      await client.config('SET', 'requirepass', password);
      await closeRedis(client);
    },
    stop: () => server.stop(),
    start: async () => {
      server = await startRedisServer(inject('redisExecutable'), { directory, appendOnly, ...more, port });
    },
    [Symbol.asyncDispose]: async () => {
      thaw();
      await server.stop();
      await rm(directory, { recursive: true, force: true });
    },
  };
}

/** Starts a Redis that reads its data for longer than any test, and says so; resolves with its port. It ends with `parts`. */
export async function startLoadingRedis(parts: AsyncDisposableStack): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-loading-'));
  parts.defer(() => rm(directory, { recursive: true, force: true }));
  const whole = { directory, appendOnly: false, arguments: ['--rdbcompression', 'no'] };
  const server = await startRedisServer(inject('redisExecutable'), whole);
  const client = connectRedis({ ...NOTHING, url: new Secret(server.url) }, 'patient', 'test', () => undefined);
  const keys = client.pipeline();
  for (let index = 0; index < 2_000; index += 1) keys.set(`key-${index}`, 'x'.repeat(2_000));
  await keys.exec();
  await client.save();
  await closeRedis(client);
  await server.stop();

  const { port } = server;
  const flags = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--rdbcompression', 'no'];
  // A tenth of a second for each key, after which it answers.
  const slow = ['--key-load-delay', '100000', '--loading-process-events-interval-bytes', '1024'];
  const child = spawn(inject('redisExecutable'), [...flags, ...slow], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  parts.defer(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  return port;
}

const NOTHING = { prefix: '', sentinelMaster: '' };
