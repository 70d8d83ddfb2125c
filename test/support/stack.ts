import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CreateBucketCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { type Config, type ConfigWithStore, loadConfig } from '../../src/config.ts';
import type { DeadLetter } from '../../src/dead-letter/dead-letter.ts';
import { type EmbeddedS3, startEmbeddedS3 } from '../../src/demo/embedded-s3.ts';
import { type RedisServer, startRedisServer } from '../../src/demo/redis-server.ts';
import { SAMPLE_FORMATS } from '../../src/demo/weixin/sample-media.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { type NewMedia, startWeixinSimulator, type WeixinSimulator } from '../../src/demo/weixin/weixin-simulator.ts';
import { cliPath, startWorkerProcess, type WorkerProcess } from '../../src/demo/worker-process.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { type OpenQueue, type OpenStore, openQueue, openStore } from '../../src/operate/open-queue.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import { createS3Client } from '../../src/store/s3-client.ts';
import { iso } from '../../src/time.ts';
import { eventually } from './eventually.ts';
import { APP_ID, APP_SECRET } from './jobs.ts';

const BUCKET = 'weixin-media';
const EMBEDDED_S3_KEYS = { accessKeyId: 'test', secretAccessKey: 'the-secret-key-of-the-store' };
/** A command that takes longer hangs, on the slowest machine. */
const COMMAND_TIMEOUT_MS = 90_000;

export type Environment = Readonly<Record<string, string>>;

/** How a command ended. */
export interface CommandResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
  /** The lines of stdout, each parsed as JSON. @throws when one is none. */
  rows(): Record<string, unknown>[];
}

export interface CommandOptions {
  /** Replaces variables of the stack's environment; an empty one counts as not set. */
  readonly env?: Environment;
  /** For standard input, which is closed after it; `open` leaves it open with nothing in it. */
  readonly input?: string | Buffer | 'open';
  /** In place of an empty folder. */
  readonly cwd?: string;
  readonly uid?: number;
  readonly nodeOptions?: readonly string[];
}

/**
 * Runs `weixin-media` as a process of its own.
 *
 * @throws Error when it has not ended by itself long after it should have.
 */
export async function runCommand(
  args: readonly string[],
  { env = {}, input = '', cwd = '/', uid, nodeOptions = [] }: CommandOptions = {},
): Promise<CommandResult> {
  const child = spawn(process.execPath, [...nodeOptions, cliPath(), ...args], {
    env: { ...env },
    cwd,
    ...(uid === undefined ? {} : { uid, gid: uid }),
  });
  const texts = { stdout: '', stderr: '' };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    texts.stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    texts.stderr += text;
  });
  // A command that does not read its input may end before it is written.
  child.stdin.on('error', () => undefined);
  if (input !== 'open') child.stdin.end(input);
  const { promise, resolve } = Promise.withResolvers<number | NodeJS.Signals | null>();
  child.once('close', (code, signal) => resolve(code ?? signal));
  const timer = setTimeout(() => child.kill('SIGKILL'), COMMAND_TIMEOUT_MS);
  const ended = await promise;
  clearTimeout(timer);
  child.stdin.destroy();
  if (typeof ended !== 'number')
    throw new Error(`weixin-media ${args.join(' ')} ended with ${ended}:\n${texts.stderr}`);
  const { stdout, stderr } = texts;
  return {
    code: ended,
    stdout,
    stderr,
    rows: () => linesOf(stdout).map((line) => JSON.parse(line) as Record<string, unknown>),
  };
}

/** Everything a fleet needs, on this machine: Redis, an S3 server, a WeChat simulator. */
export interface Stack extends AsyncDisposable {
  /** Of a worker or a command. */
  readonly environment: Environment;
  readonly config: ConfigWithStore;
  /** A folder of this stack's own, removed with it. */
  readonly folder: string;
  readonly simulator: WeixinSimulator;
  readonly s3: Pick<EmbeddedS3, 'endpoint' | 'bucket'>;
  readonly s3Client: S3Client;
  readonly opened: OpenStore;
  readonly queue: OpenQueue;
  /** A patient connection for looking into Redis. */
  readonly redis: RedisClient;
  /** The stack's own redis-server. @throws where it shares one. */
  redisServer(): RedisServer;
  /** Starts the own redis-server again, at its address and on its data. */
  restartRedis(): Promise<void>;
  /** Starts a worker that is gone when the stack is. @param stderr a file descriptor in place of `log()`. */
  worker(env?: Environment, stderr?: number): WorkerProcess;
  /** Starts an ingest process that is gone when the stack is. Resolves with it and its address once it takes media. */
  ingest(env?: Environment): Promise<WorkerProcess & { readonly url: string }>;
  /** Starts a catalog process that is gone when the stack is. */
  catalog(env?: Environment): WorkerProcess;
  /** Starts a process that derives files, and is gone when the stack is. */
  derive(env?: Environment): WorkerProcess;
  command(args: readonly string[], options?: CommandOptions): Promise<CommandResult>;
  /** Lets the simulator know as many media. */
  addMedia(count: number, media?: Partial<NewMedia>): SimulatedMedia[];
}

export interface StackOptions {
  /** A redis-server of its own, with an AOF, in place of a corner of the shared one. */
  readonly ownRedis?: boolean;
  /** Further arguments of that redis-server. */
  readonly redisArguments?: readonly string[];
  readonly env?: Environment;
  /** The program of a redis-server. Absent: that of the test run. */
  readonly redisExecutable?: string;
  /** Another S3 server, in place of one in this process. */
  readonly gateway?: { readonly endpoint: string; readonly accessKeyId: string; readonly secretAccessKey: string };
}

/** Brings everything up. Outside a test run it needs `ownRedis` and `redisExecutable`. */
export async function openStack(options: StackOptions = {}): Promise<Stack> {
  const { ownRedis = false, env = {}, gateway } = options;
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-stack-'));
  parts.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const s3 =
    gateway === undefined
      ? { ...EMBEDDED_S3_KEYS, ...parts.use(await startEmbeddedS3(BUCKET)) }
      : { ...gateway, bucket: `weixin-media-${crypto.randomUUID()}` };
  const simulator = await startWeixinSimulator();
  parts.defer(() => simulator.close());
  simulator.addApp({ appId: APP_ID, secret: APP_SECRET });

  const redisOptions = {
    directory: join(folder, 'redis'),
    appendOnly: true,
    ...(options.redisArguments === undefined ? {} : { arguments: options.redisArguments }),
  };
  const executable = options.redisExecutable ?? (await injected('redisExecutable'));
  let server = ownRedis ? await startRedisServer(executable, redisOptions) : undefined;
  parts.defer(async () => {
    // It may have been frozen.
    server?.process.kill('SIGCONT');
    await server?.stop();
  });
  const prefix = ownRedis ? '{weixin-media}' : `{test-${crypto.randomUUID()}}`;
  const environment: Environment = {
    REDIS_URL: server?.url ?? (await injected('redisUrl')),
    QUEUE_PREFIX: prefix,
    ARCHIVE_BUCKET: s3.bucket,
    S3_FORCE_PATH_STYLE: 'true',
    AWS_ENDPOINT_URL_S3: s3.endpoint,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: s3.accessKeyId,
    AWS_SECRET_ACCESS_KEY: s3.secretAccessKey,
    WEIXIN_APP_ID: APP_ID,
    WEIXIN_APP_SECRET: APP_SECRET,
    WEIXIN_API_BASE_URL: simulator.url,
    WEIXIN_DOWNLOAD_ALLOW_HOSTS: '127.0.0.1',
    METRICS_PORT: '0',
    ...compileCache(),
    ...env,
  };
  const config = loadConfig(environment, ['store', 'accounts']);
  const credentials = { accessKeyId: s3.accessKeyId, secretAccessKey: new Secret(s3.secretAccessKey) };
  const s3Client = createS3Client({ ...config.store, credentials }, 16);
  parts.defer(() => s3Client.destroy());
  if (gateway !== undefined) await s3Client.send(new CreateBucketCommand({ Bucket: s3.bucket }));
  const redis = connectRedis(config.redis, 'patient', 'test', () => undefined);
  parts.defer(async () => {
    if (!ownRedis) await removeKeys(redis, prefix);
    await closeRedis(redis);
  });
  const queue = parts.use(await openQueue(config));
  const opened = parts.use(openStore({ ...config.store, credentials }, queue));

  const workers: WorkerProcess[] = [];
  parts.defer(async () => {
    for (const { process: child } of workers) child.kill('SIGKILL');
    await Promise.all(workers.map(({ exited }) => exited));
  });

  const moved = parts.move();
  return {
    environment,
    config,
    folder,
    simulator,
    s3,
    s3Client,
    opened,
    queue,
    redis,
    redisServer: () => {
      if (server === undefined) throw new Error('this stack has no redis-server of its own');
      return server;
    },
    restartRedis: async () => {
      if (server === undefined) throw new Error('this stack has no redis-server of its own');
      const { port } = server;
      await server.stop();
      server = await startRedisServer(executable, { ...redisOptions, port });
    },
    worker: (more = {}, stderr) => {
      const worker = startWorkerProcess({ ...environment, ...more }, stderr);
      workers.push(worker);
      return worker;
    },
    ingest: async (more = {}) => {
      const ingest = startWorkerProcess({ ...environment, HTTP_PORT: '0', ...more }, 'pipe', 'ingest');
      workers.push(ingest);
      await ingest.said('"msg":"ingest started"');
      return { ...ingest, url: `http://127.0.0.1:${String(logLines(ingest, 'ingest listens')[0]?.['httpPort'])}` };
    },
    catalog: (more = {}) => {
      const catalog = startWorkerProcess({ ...environment, CATALOG_FOLDER: folder, ...more }, 'pipe', 'catalog');
      workers.push(catalog);
      return catalog;
    },
    derive: (more = {}) => {
      const { PATH = '' } = process.env;
      const derive = startWorkerProcess({ ...environment, PATH, CATALOG_FOLDER: folder, ...more }, 'pipe', 'derive');
      workers.push(derive);
      return derive;
    },
    command: (args, options = {}) =>
      runCommand(args, { cwd: folder, ...options, env: { ...environment, ...options.env } }),
    addMedia: (count, media = {}) =>
      Array.from({ length: count }, () => simulator.addMedia({ appId: APP_ID, format: 'jpeg', ...media })),
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

function compileCache(): Environment {
  const { NODE_COMPILE_CACHE: folder } = process.env;
  return folder === undefined ? {} : { NODE_COMPILE_CACHE: folder };
}

/** What the test run's set-up has provided. Asked only there: outside it vitest can't be loaded. */
async function injected(name: 'redisExecutable' | 'redisUrl'): Promise<string> {
  const { inject } = await import('vitest');
  return inject(name);
}

async function removeKeys(redis: RedisClient, prefix: string): Promise<void> {
  const keys = await redis.keys(`${prefix.replace(/[[\]{}?*\\]/g, '\\$&')}*`);
  if (keys.length > 0) await redis.del(...keys);
}

export function linesOf(text: string): string[] {
  return text.split('\n').filter((line) => line !== '');
}

export function jobOf({ appId, mediaId, format, sentAt }: SimulatedMedia): MediaJob {
  return { v: 1, appId, mediaId, kind: SAMPLE_FORMATS[format].kind, receivedAt: iso(sentAt) };
}

/** Writes lines of JSON into the stack's folder and returns the path. */
export async function writeLines(stack: Stack, lines: readonly (object | string)[], newline = '\n'): Promise<string> {
  const path = join(stack.folder, `${crypto.randomUUID()}.ndjson`);
  const texts = lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line)));
  await writeFile(path, texts.join(newline) + newline);
  return path;
}

/** How many jobs the queue holds. */
export async function openJobs({ queue, config }: Pick<Stack, 'queue'> & { config: Config }): Promise<number> {
  const apps = [...config.accounts.map(({ appId }) => laneOf(appId)), 'media'];
  const counts = await Promise.all(apps.map((lane) => queue.lanes.lane(lane).counts()));
  return counts.reduce((sum, { waiting, delayed, active }) => sum + waiting + delayed + active, 0);
}

/** Waits until nothing is left to do. */
export async function untilIdle(stack: Stack, timeoutMs?: number): Promise<void> {
  await eventually(async () => ((await openJobs(stack)) === 0 ? true : undefined), timeoutMs);
}

/** The media whose object in the bucket does not hold the very bytes that the simulator has. */
export async function notArchived(stack: Stack, media: readonly SimulatedMedia[]): Promise<string[]> {
  const signal = AbortSignal.timeout(120_000);
  const keys = await stack.queue.markers.find(media.map(({ appId, mediaId }) => `${appId}-${mediaId}`));
  const wrong: string[] = [];
  for (const [index, { mediaId, bytes }] of media.entries()) {
    const key = keys[index];
    const digest = key === undefined ? undefined : await stack.opened.store.digest(key, signal);
    if (digest?.ok !== true || digest.value?.sha256 !== bytes.sha256) wrong.push(mediaId);
  }
  return wrong;
}

/** The keys in the bucket below a prefix. */
export async function keysBelow({ opened }: Stack, prefix: string): Promise<string[]> {
  const listed = await Array.fromAsync(opened.store.list(prefix, AbortSignal.timeout(60_000)));
  return listed.map(({ key }) => key);
}

export async function openUploads({ s3Client, s3 }: Stack): Promise<string[]> {
  const { Uploads = [] } = await s3Client.send(new ListMultipartUploadsCommand({ Bucket: s3.bucket }));
  return Uploads.map(({ Key = '' }) => Key);
}

/** Every dead letter in the bucket. */
export async function lettersOf(stack: Stack): Promise<DeadLetter[]> {
  const letters: DeadLetter[] = [];
  for (const key of await keysBelow(stack, 'dead-letters/')) {
    const letter = await stack.opened.deadLetters.read(key, AbortSignal.timeout(60_000));
    if (letter.ok && letter.value !== undefined) letters.push(letter.value);
  }
  return letters;
}

/** The lines of a worker's log that say `message`. */
export function logLines(worker: WorkerProcess, message: string): Record<string, unknown>[] {
  return linesOf(worker.log())
    .filter((line) => line.includes(`"msg":"${message}`))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

/** Where a worker that has started serves its health. */
export function healthUrl(worker: WorkerProcess): string {
  const port = logLines(worker, 'worker started')[0]?.['metricsPort'];
  return `http://127.0.0.1:${String(port)}`;
}

/** Everything in Redis as text: keys, and values of every type. */
export async function dumpRedis(redis: RedisClient, pattern = '*'): Promise<string> {
  const texts: string[] = [];
  for (const key of await redis.keys(pattern.replace(/[[\]{}?\\]/g, '\\$&'))) {
    texts.push(key);
    const type = await redis.type(key);
    if (type === 'string') texts.push((await redis.get(key)) ?? '');
    else if (type === 'hash') texts.push(...Object.entries(await redis.hgetall(key)).flat());
    else if (type === 'set') texts.push(...(await redis.smembers(key)));
    else if (type === 'zset') texts.push(...(await redis.zrange(key, '0', '-1', 'WITHSCORES')));
    else if (type === 'list') texts.push(...(await redis.lrange(key, 0, -1)));
    else if (type === 'stream') texts.push(JSON.stringify(await redis.xrange(key, '-', '+')));
    else if (type !== 'none') throw new Error(`a ${type} at ${key}`);
  }
  return texts.join('\n');
}

/** Everything in the bucket as text: keys, headers and metadata, and the documents. */
export async function dumpBucket(stack: Stack): Promise<string> {
  const { s3Client, s3 } = stack;
  const texts: string[] = [];
  for (const key of await keysBelow(stack, '')) {
    const { $metadata: _, ...head } = await s3Client.send(new HeadObjectCommand({ Bucket: s3.bucket, Key: key }));
    texts.push(key, JSON.stringify(head));
    if (!key.endsWith('.json')) continue;
    const { Body } = await s3Client.send(new GetObjectCommand({ Bucket: s3.bucket, Key: key }));
    texts.push((await Body?.transformToString()) ?? '');
  }
  return texts.join('\n');
}
