import { closeSync, openSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../../../src/config.ts';
import { provideRedisServer, startRedisServer } from '../../../src/demo/redis-server.ts';
import { startWorkerProcess, type WorkerProcess } from '../../../src/demo/worker-process.ts';
import { type OpenQueue, openQueue } from '../../../src/operate/open-queue.ts';
import type { RedisClient } from '../../../src/redis/connect.ts';
import { closeRedis, connectRedis } from '../../../src/redis/connect.ts';
import { Secret } from '../../../src/secret.ts';
import { provideProgram } from '../speed/debian-program.ts';
import { type Nginx, startOrigin, startSink } from '../speed/nginx.ts';

/** WORKER_CONCURRENCY of each worker. */
const CONCURRENCY = 64;

/** What all runs share: a folder, WeChat and the store. */
export interface Surroundings extends AsyncDisposable {
  readonly folder: string;
  readonly redisExecutable: string;
  readonly origin: Nginx;
  readonly sink: Nginx;
}

export async function openSurroundings(note: (text: string) => void): Promise<Surroundings> {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-scale-'));
  parts.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const nginx = await provideProgram('nginx', 'usr/sbin/nginx');
  const redisExecutable = await provideRedisServer(note);
  const origin = parts.use(await startOrigin(nginx, folder));
  const sink = parts.use(await startSink(nginx, folder));
  const moved = parts.move();
  return { folder, redisExecutable, origin, sink, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}

/** A Redis of its own for one run, and the workers on it, which are killed in the end. */
export interface Rig extends AsyncDisposable {
  readonly queue: OpenQueue;
  /** A connection of this bench's own, so that it may block. */
  readonly redis: RedisClient;
  readonly redisUrl: string;
  readonly redisPid: number;
  /** Where Redis and logs lie. */
  readonly directory: string;
  readonly appIds: readonly string[];
  /** A new id under which the origin has the sample of this name. */
  newMediaId(sample: string): string;
  /** All that were started. */
  readonly workers: readonly WorkerProcess[];
  startWorker(): WorkerProcess;
}

export async function openRig({ folder, redisExecutable, origin, sink }: Surroundings, apps: number): Promise<Rig> {
  await using opened = new AsyncDisposableStack();
  const directory = await mkdtemp(join(folder, 'redis-'));
  const server = opened.use(await startRedisServer(redisExecutable, { directory, appendOnly: true }));
  const appIds = Array.from({ length: apps }, (_, index) => `wx${index.toString(16).padStart(16, '0')}`);
  const accounts = join(directory, 'accounts.json');
  const credential = { type: 'stable_token', secret: { env: 'BENCH_SECRET' } };
  await writeFile(accounts, JSON.stringify({ accounts: appIds.map((appId) => ({ appId, credential })) }));
  const environment = {
    REDIS_URL: server.url,
    ARCHIVE_BUCKET: 'bench',
    S3_FORCE_PATH_STYLE: 'true',
    AWS_ENDPOINT_URL_S3: sink.url,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'bench',
    AWS_SECRET_ACCESS_KEY: 'key-of-the-bench',
    WEIXIN_ACCOUNTS_FILE: accounts,
    BENCH_SECRET: 'secret-of-the-bench',
    WEIXIN_API_BASE_URL: origin.url,
    WORKER_CONCURRENCY: String(CONCURRENCY),
    METRICS_PORT: '0',
  };
  const config = loadConfig(environment, ['accounts']);
  const queue = opened.use(await openQueue(config));
  const url = new Secret(server.url);
  const redis = connectRedis({ url, prefix: '', sentinelMaster: '' }, 'patient', 'bench', () => undefined);
  opened.defer(() => closeRedis(redis));
  const log = openSync(join(directory, 'worker.log'), 'a');
  opened.defer(() => closeSync(log));
  const workers: WorkerProcess[] = [];
  opened.defer(async () => {
    for (const { process: child } of workers) child.kill('SIGKILL');
    await Promise.all(workers.map(({ exited }) => exited));
  });
  let serial = 0;
  const moved = opened.move();
  return {
    queue,
    redis,
    redisUrl: server.url,
    redisPid: server.process.pid ?? 0,
    directory,
    appIds,
    newMediaId: (sample) => {
      serial += 1;
      return `${sample}-${serial}`;
    },
    workers,
    startWorker: () => {
      const worker = startWorkerProcess(environment, log);
      workers.push(worker);
      return worker;
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}
