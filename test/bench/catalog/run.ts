import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { CATALOG_PREFIX, tablePrefix } from '../../../src/catalog/catalog-keys.ts';
import { mediaEntryOf } from '../../../src/catalog/outbox.ts';
import { provideRedisServer, startRedisServer } from '../../../src/demo/redis-server.ts';
import { startWorkerProcess, type WorkerProcess } from '../../../src/demo/worker-process.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../../src/redis/connect.ts';
import { redisKeys } from '../../../src/redis/keys.ts';
import { Secret } from '../../../src/secret.ts';
import { createBucketFiles } from '../../../src/store/bucket-files.ts';
import { createS3Client } from '../../../src/store/s3-client.ts';
import { DAY, SECOND } from '../../../src/time.ts';
import { logLines } from '../../support/stack.ts';
import { startHelper } from '../helper-process.ts';
import { processMemory } from '../memory/process-memory.ts';
import { cpuTimeMs } from '../speed/cpu-time.ts';
import { usedMemory } from '../used-memory.ts';
import { type QueryTimes, timeQueries } from './queries.ts';
import { appIdOf, mediaOf, type Sample } from './rows.ts';
import type { StoreAnswer, StoreAsk } from './store.ts';

export interface BenchOptions extends Pick<Sample, 'rows' | 'apps' | 'days'> {
  /** Variables of the catalog process. */
  readonly env?: Readonly<Record<string, string>>;
  readonly note: (text: string) => void;
}

/** What one part of the work has needed. */
export interface Effort {
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** The most memory of the catalog process, node and DuckDB together. */
  readonly peakBytes: number;
  readonly rowsPerSecond: number;
  readonly files: number;
  readonly bytes: number;
  readonly smallestBytes: number;
  readonly largestBytes: number;
  readonly storeRequests: number;
}

export interface BenchReport extends Pick<Sample, 'rows' | 'apps' | 'days'> {
  readonly outboxBytesPerRow: number;
  readonly parquetBytesPerRow: number;
  /** All that waits in the outbox is written to the bucket. */
  readonly flush: Effort;
  /** The days are compared with the bucket and their files merged. */
  readonly closing: Effort;
  readonly rowsFound: number;
  readonly queries: readonly QueryTimes[];
}

const PREFIX = '{weixin-media}';
const BUCKET = 'weixin-media';
const PART_SIZE_BYTES = 8 * 1024 * 1024;
/** Entries in one pipeline. */
const ADDED_AT_ONCE = 1_000;
const LOOK_EVERY_MS = 100;

/**
 * Lets a catalog process flush media of days that are over, then close the days, and asks the result some questions.
 *
 * Redis, the store and the catalog are processes of their own, on this machine; all they write is removed.
 */
export async function runBench({ rows, apps, days, env = {}, note }: BenchOptions): Promise<BenchReport> {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-bench-'));
  parts.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
  const at = async (name: string): Promise<string> => {
    await mkdir(join(directory, name));
    return join(directory, name);
  };
  const redisServer = parts.use(
    await startRedisServer(await provideRedisServer(note), { directory: await at('redis'), appendOnly: false }),
  );
  const store = parts.use(
    startHelper<StoreAsk, StoreAnswer>(new URL('./store.ts', import.meta.url), [await at('store')]),
  );
  const { url } = await store.ask({ type: 'address' });
  const redis = connectRedis(
    { url: new Secret(redisServer.url), prefix: PREFIX, sentinelMaster: '' },
    'patient',
    'bench',
    (error) => note(error.message),
  );
  parts.defer(() => closeRedis(redis));
  const keys = redisKeys(PREFIX);
  const credentials = { accessKeyId: 'bench', secretAccessKey: new Secret('bench') };
  const client = createS3Client(
    { bucket: BUCKET, endpoint: url, partSizeBytes: PART_SIZE_BYTES, forcePathStyle: true, credentials },
    16,
  );
  parts.defer(() => client.destroy());

  // Long enough ago to be closed.
  const sample: Sample = { rows, apps, days, since: Math.floor(Date.now() / DAY) * DAY - (days + 5) * DAY };
  note(`adding ${rows.toLocaleString('en')} rows to the outbox`);
  const before = await usedMemory(redis);
  await fillOutbox(redis, keys.outbox, sample);
  const outboxBytesPerRow = Math.round(((await usedMemory(redis)) - before) / rows);

  const catalogEnv = {
    REDIS_URL: redisServer.url,
    QUEUE_PREFIX: PREFIX,
    ARCHIVE_BUCKET: BUCKET,
    S3_FORCE_PATH_STYLE: 'true',
    AWS_ENDPOINT_URL_S3: url,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'bench',
    AWS_SECRET_ACCESS_KEY: 'bench',
    METRICS_PORT: '0',
    CATALOG_FOLDER: await at('catalog'),
    CATALOG_FLUSH_SECONDS: '0.1',
    ...(process.env['NODE_OPTIONS'] === undefined ? {} : { NODE_OPTIONS: process.env['NODE_OPTIONS'] }),
    ...env,
  };
  const files = createBucketFiles({ client, bucket: BUCKET, partSizeBytes: PART_SIZE_BYTES });

  note('flushing');
  // With days that are not over for long.
  const flushing = parts.use(measured({ ...catalogEnv, CATALOG_CLOSE_AFTER_HOURS: '8000' }));
  const flush = await flushing.until(async () => (await redis.xlen(keys.outbox)) === 0);
  await flushing.stop();

  note('closing');
  await store.ask({ type: 'media', sample });
  const closing = parts.use(measured({ ...catalogEnv, MEDIA_TTL_HOURS: '72', CATALOG_CLOSE_AFTER_HOURS: '0' }));
  const lastDay = new Date(sample.since + (days - 1) * DAY).toISOString().slice(0, 10);
  const closed = await closing.until(async () =>
    logLines(closing.process, 'day closed').some(({ dt }) => String(dt) >= lastDay),
  );
  const added = logLines(closing.process, 'day closed').reduce((sum, line) => sum + Number(line['added']), 0);
  if (added > 0) throw new Error(`${added} rows were missing`);
  await closing.stop();

  note('asking');
  const folder = await at('queries');
  const { files: result } = await store.ask({ type: 'files', prefix: tablePrefix('media') });
  const { found, times } = await timeQueries(
    files,
    result.map(({ key }) => key),
    sample,
    appIdOf(0),
    folder,
  );
  if (found !== rows) throw new Error(`${found} rows where there should be ${rows}`);
  return {
    rows,
    apps,
    days,
    outboxBytesPerRow,
    parquetBytesPerRow: Math.round(closed.bytes / rows),
    flush,
    closing: closed,
    rowsFound: found,
    queries: times,
  };

  interface Measured extends AsyncDisposable {
    readonly process: WorkerProcess;
    until(isDone: () => Promise<boolean>): Promise<Effort>;
    stop(): Promise<void>;
  }

  function measured(environment: Readonly<Record<string, string>>): Measured {
    const started = startWorkerProcess(environment, 'pipe', 'catalog');
    const { pid = 0 } = started.process;
    return {
      process: started,
      until: async (isDone) => {
        await started.said('"msg":"catalog started"');
        const [startedAt, cpuAtStart] = [performance.now(), cpuTimeMs(pid)];
        const { requests } = await store.ask({ type: 'address' });
        while (!(await isDone())) {
          if (started.process.exitCode !== null || started.process.signalCode !== null)
            throw new Error(`the catalog process ended:\n${started.log()}`);
          const [failed] = logLines(started, 'a turn of the catalog failed');
          if (failed !== undefined) throw new Error(JSON.stringify(failed));
          await sleep(LOOK_EVERY_MS);
        }
        const seconds = (performance.now() - startedAt) / SECOND;
        const now = await store.ask({ type: 'files', prefix: CATALOG_PREFIX });
        const sizes = now.files.flatMap(({ key, sizeBytes }) => (key.endsWith('.parquet') ? sizeBytes : []));
        return {
          seconds,
          cpuSeconds: (cpuTimeMs(pid) - cpuAtStart) / SECOND,
          peakBytes: processMemory(pid).peakBytes,
          rowsPerSecond: Math.round(rows / seconds),
          files: sizes.length,
          bytes: sizes.reduce((sum, bytes) => sum + bytes, 0),
          smallestBytes: sizes.reduce((least, bytes) => Math.min(least, bytes), Number.POSITIVE_INFINITY),
          largestBytes: sizes.reduce((most, bytes) => Math.max(most, bytes), 0),
          storeRequests: now.requests - requests,
        };
      },
      stop: () => started.stop(),
      [Symbol.asyncDispose]: () => started.stop(0),
    };
  }
}

async function fillOutbox(redis: RedisClient, outbox: string, sample: Sample): Promise<void> {
  for (let start = 0; start < sample.rows; start += ADDED_AT_ONCE) {
    const pipeline = redis.pipeline();
    for (let index = start; index < Math.min(start + ADDED_AT_ONCE, sample.rows); index += 1)
      pipeline.xadd(outbox, '*', ...mediaEntryOf(mediaOf(index, sample).row, false));
    await pipeline.exec();
  }
}
