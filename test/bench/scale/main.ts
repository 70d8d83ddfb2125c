/**
 * Measures what stays the same however much there is: with more jobs, more apps, more worker processes.
 *
 *   npm run bench:scale -- [--backlog 1000,100000,1000000] [--apps 1,10,1000] [--processes 1,2,4] [--jobs N]
 *                          [--samples N] [--only backlog,apps,processes,latency] [--json]
 *
 * The real worker, a redis-server with an append-only file, nginx with pictures of 64 KiB in WeChat's place and one that
 * reads and forgets in the store's. Of each backlog as many jobs are archived and timed as `--jobs` says; the rest waits.
 * `latency` hands in a picture of 200 KiB at a time, to a system that has nothing else to do.
 */
import { openSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { MEDIA_TABLE } from '../../../src/catalog/media-table.ts';
import { unpackRow } from '../../../src/catalog/table.ts';
import { loadConfig } from '../../../src/config.ts';
import { provideRedisServer, startRedisServer } from '../../../src/demo/redis-server.ts';
import { startWorkerProcess, type WorkerProcess } from '../../../src/demo/worker-process.ts';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { type OpenQueue, openQueue } from '../../../src/operate/open-queue.ts';
import type { RedisClient } from '../../../src/redis/connect.ts';
import { closeRedis, connectRedis } from '../../../src/redis/connect.ts';
import { Secret } from '../../../src/secret.ts';
import { cpuTimeMs } from '../speed/cpu-time.ts';
import { provideProgram } from '../speed/debian-program.ts';
import { startOrigin, startSink } from '../speed/nginx.ts';
import { PICTURE, WORKLOADS } from '../speed/samples.ts';

const SECTIONS = ['backlog', 'apps', 'processes', 'latency'];
const { values } = parseArgs({
  options: {
    backlog: { type: 'string', default: '1000,100000,1000000' },
    apps: { type: 'string', default: '1,10,1000' },
    processes: { type: 'string', default: '1,2,4' },
    jobs: { type: 'string', default: '5000' },
    samples: { type: 'string', default: '200' },
    only: { type: 'string', default: SECTIONS.join(',') },
    json: { type: 'boolean', default: false },
  },
});
const jobs = Number(values.jobs);
const only = values.only.split(',');
const numbers = (text: string): number[] => text.split(',').map(Number);
const note = (text: string): void => void process.stderr.write(`${text}\n`);
const BATCH = 1_000;
const CONCURRENCY = 64;
/** No media is archived twice. */
let serial = 0;
const SMALL = WORKLOADS[0]?.samples[0]?.name ?? '';

await using parts = new AsyncDisposableStack();
const folder = await mkdtemp(join(tmpdir(), 'weixin-media-scale-'));
parts.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
const nginx = await provideProgram('nginx', 'usr/sbin/nginx');
const redisExecutable = await provideRedisServer(note);
const origin = parts.use(await startOrigin(nginx, folder));
const sink = parts.use(await startSink(nginx, folder));

if (only.includes('backlog')) {
  const row = table([
    'jobs waiting',
    'archived a second',
    'CPU of the worker, a job',
    'CPU of Redis, a job',
    'memory of Redis, a job',
  ]);
  for (const backlog of numbers(values.backlog)) {
    const run = await measure({ backlog, apps: 1, processes: 1 });
    row({ measure: 'backlog', ...run }, [whole(backlog), ...cellsOf(run), `${whole(run.redisBytesPerJob)} B`]);
  }
}
if (only.includes('apps')) {
  const row = table(['apps', 'archived a second', 'CPU of the worker, a job', 'CPU of Redis, a job']);
  for (const apps of numbers(values.apps)) {
    const run = await measure({ backlog: jobs, apps, processes: 1 });
    row({ measure: 'apps', ...run }, [whole(apps), ...cellsOf(run)]);
  }
}
if (only.includes('processes')) {
  const row = table(['worker processes', 'archived a second', 'CPU of the workers, a job', 'CPU of Redis, a job']);
  for (const processes of numbers(values.processes)) {
    const run = await measure({ backlog: 2 * jobs, apps: 1, processes });
    row({ measure: 'processes', ...run }, [whole(processes), ...cellsOf(run)]);
  }
}
if (only.includes('latency')) await measureLatency(Number(values.samples));

interface Setting {
  /** How many jobs wait before the workers begin. */
  readonly backlog: number;
  readonly apps: number;
  readonly processes: number;
}

interface Run extends Setting {
  readonly archived: number;
  readonly archivedPerSecond: number;
  readonly workerCpuMsPerJob: number;
  readonly redisCpuMsPerJob: number;
  readonly redisBytesPerJob: number;
}

interface Rig extends AsyncDisposable {
  readonly queue: OpenQueue;
  readonly redis: RedisClient;
  readonly redisPid: number;
  readonly appIds: readonly string[];
  startWorker(): WorkerProcess;
}

async function openRig(apps: number): Promise<Rig> {
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
  const workers: WorkerProcess[] = [];
  opened.defer(async () => {
    for (const { process: child } of workers) child.kill('SIGKILL');
    await Promise.all(workers.map(({ exited }) => exited));
  });
  const moved = opened.move();
  return {
    queue,
    redis,
    redisPid: server.process.pid ?? 0,
    appIds,
    startWorker: () => {
      const worker = startWorkerProcess(environment, log);
      workers.push(worker);
      return worker;
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

/** Lets workers run on a backlog, first until they are warm, then for as long as it is timed. */
async function measure(setting: Setting): Promise<Run> {
  const { backlog, apps, processes } = setting;
  await using rig = await openRig(apps);
  const { redis, redisPid } = rig;
  const before = await memoryOf(redis);
  await enqueue(rig, SMALL, backlog);
  const redisBytesPerJob = ((await memoryOf(redis)) - before) / backlog;
  const accepted = await outboxEntries(rig);
  const workers = Array.from({ length: processes }, () => rig.startWorker());
  const look = async (): Promise<{ at: number; archived: number; cpuMs: number; redisMs: number }> => ({
    archived: (await outboxEntries(rig)) - accepted,
    at: performance.now(),
    cpuMs: workers.reduce((sum, { process: { pid } }) => sum + cpuTimeMs(pid ?? 0), 0),
    redisMs: cpuTimeMs(redisPid),
  });
  const until = async (wanted: number): Promise<Awaited<ReturnType<typeof look>>> => {
    for (;;) {
      const seen = await look();
      if (seen.archived >= wanted) return seen;
      await sleep(10);
    }
  };
  const timed = Math.min(jobs, backlog);
  // The first are for the compiler, and for tokens.
  const start = await until(Math.floor(timed / 4));
  const end = await until(timed);
  const archived = end.archived - start.archived;
  return {
    ...setting,
    archived,
    archivedPerSecond: (archived / (end.at - start.at)) * 1_000,
    workerCpuMsPerJob: (end.cpuMs - start.cpuMs) / archived,
    redisCpuMsPerJob: (end.redisMs - start.redisMs) / archived,
    redisBytesPerJob,
  };
}

async function enqueue({ queue, appIds }: Rig, sample: string, count: number): Promise<void> {
  const receivedAt = new Date().toISOString();
  for (let from = 0; from < count; from += BATCH) {
    const batch = Array.from({ length: Math.min(BATCH, count - from) }, (_, index): MediaJob => {
      serial += 1;
      return { v: 1, appId: appIds[index % appIds.length] ?? '', mediaId: `${sample}-${serial}`, receivedAt };
    });
    const { accepted } = await queue.door.admit(batch);
    if (accepted !== batch.length) throw new Error('not all jobs are new');
  }
}

/** Entries that were ever added to the outbox: while workers run and nobody hands in, each is an archived media. */
async function outboxEntries({ redis, queue }: Rig): Promise<number> {
  const facts = (await redis.xinfo('STREAM', queue.keys.outbox)) as unknown[];
  return Number(facts[facts.indexOf('entries-added') + 1]);
}

/** One picture at a time, from the call that hands it in until its row lies in the outbox. */
async function measureLatency(samples: number): Promise<void> {
  await using rig = await openRig(1);
  rig.startWorker();
  const spans: Record<string, number[]> = { whole: [], door: [], taken: [], stored: [], told: [] };
  // The first are for the compiler.
  for (let index = -Math.ceil(samples / 4); index < samples; index += 1) {
    const last = await lastEntryOf(rig);
    const begunAt = Date.now();
    const begun = performance.now();
    await enqueue(rig, PICTURE.name, 1);
    const queued = performance.now();
    const row = await nextArchived(rig, last);
    const whole = performance.now() - begun;
    if (index < 0) continue;
    const door = queued - begun;
    const taken = row.startedAt - begunAt - door;
    const stored = row.markedAt - row.startedAt;
    for (const [name, ms] of Object.entries({ whole, door, taken, stored, told: whole - door - taken - stored }))
      spans[name]?.push(ms);
  }
  const row = table(['a picture of 200 KiB, nothing else to do', 'p50', 'p95', 'p99']);
  const names = {
    whole: 'from the push to its row for the catalog',
    door: 'of that: until it is accepted',
    taken: 'until a worker has begun',
    stored: 'until it is fetched and stored, and its row written',
    told: 'until this bench sees the row',
  };
  for (const [name, label] of Object.entries(names)) {
    const at = (share: number): number => quantile(spans[name] ?? [], share);
    row({ measure: 'latency', span: name, p50: at(0.5), p95: at(0.95), p99: at(0.99) }, [
      label,
      ...[0.5, 0.95, 0.99].map((share) => `${at(share).toFixed(1)} ms`),
    ]);
  }
}

async function lastEntryOf({ redis, queue }: Rig): Promise<string> {
  const [last] = await redis.xrevrange(queue.keys.outbox, '+', '-', 'COUNT', 1);
  return last?.[0] ?? '0';
}

/** Waits for the next row of an archived media, without asking again and again. Unix times in milliseconds. */
async function nextArchived({ redis, queue }: Rig, after: string): Promise<{ startedAt: number; markedAt: number }> {
  for (let from = after; ; ) {
    const read = await redis.xread('COUNT', 10, 'BLOCK', 10_000, 'STREAMS', queue.keys.outbox, from);
    const entries = read?.[0]?.[1];
    if (entries === undefined) throw new Error('a media could not be archived at once');
    for (const [id, fields] of entries) {
      from = id;
      const row = fields[fields.indexOf('t') + 1]?.startsWith(MEDIA_TABLE.name)
        ? unpackRow(MEDIA_TABLE, (JSON.parse(fields[fields.indexOf('r') + 1] ?? '[]') as unknown[])[0])
        : undefined;
      // The id of an entry says when it was written.
      if (row !== undefined)
        return { startedAt: Date.parse(String(row['started_at'])), markedAt: Number(id.split('-')[0]) };
    }
  }
}

async function memoryOf(redis: RedisClient): Promise<number> {
  return Number(/^used_memory:(\d+)/m.exec(await redis.info('memory'))?.[1]);
}

function quantile(numbers: readonly number[], share: number): number {
  const sorted = numbers.toSorted((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

/** Prints the head of a table; then each row, or in its place the numbers it was made of. */
function table(head: readonly string[]): (facts: object, cells: readonly string[]) => void {
  if (!values.json) {
    console.log(`\n| ${head.join(' | ')} |`);
    console.log(`|---|${'--:|'.repeat(head.length - 1)}`);
  }
  return (facts, cells) => console.log(values.json ? JSON.stringify(facts) : `| ${cells.join(' | ')} |`);
}

function cellsOf({ archivedPerSecond, workerCpuMsPerJob, redisCpuMsPerJob }: Run): string[] {
  return [whole(archivedPerSecond), `${workerCpuMsPerJob.toFixed(2)} ms`, `${redisCpuMsPerJob.toFixed(2)} ms`];
}

function whole(number: number): string {
  return Math.round(number).toLocaleString('en');
}
