import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inject } from 'vitest';
import { type RedisServer, startRedisServer } from '../../src/demo/redis-server.ts';
import { closeRedis, connectRedis } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';

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
