import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConfigWithStore, loadConfig } from '../../../src/config.ts';
import { provideRedisServer, startRedisServer } from '../../../src/demo/redis-server.ts';
import { startWorkerProcess, type WorkerProcess } from '../../../src/demo/worker-process.ts';
import { type OpenQueue, openQueue } from '../../../src/operate/open-queue.ts';
import { APP_ID, APP_SECRET } from '../../support/jobs.ts';
import { type Environment, healthUrl } from '../../support/stack.ts';
import { type HelperProcess, startHelper } from '../helper-process.ts';
import type { OriginAnswer, OriginAsk } from './origin.ts';
import type { SinkAnswer, SinkAsk } from './sink.ts';

/** A worker under test, and what it says of itself. It is killed in the end. */
export interface MeasuredWorker extends AsyncDisposable {
  readonly pid: number;
  /** A number of /metrics; 0 while there is none. */
  metric(name: string): Promise<number>;
}

/** Everything that a worker needs, each in a process of its own. */
export interface Rig extends AsyncDisposable {
  readonly origin: HelperProcess<OriginAsk, OriginAnswer>;
  readonly sink: HelperProcess<SinkAsk, SinkAnswer>;
  readonly queue: OpenQueue;
  /** Starts a worker and resolves when it is ready. */
  worker(env: Environment): Promise<MeasuredWorker>;
}

export async function openRig(note: (text: string) => void): Promise<Rig> {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-bench-'));
  parts.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
  const redis = parts.use(await startRedisServer(await provideRedisServer(note), { directory, appendOnly: false }));
  const origin = parts.use(startHelper<OriginAsk, OriginAnswer>(new URL('./origin.ts', import.meta.url)));
  const sink = parts.use(startHelper<SinkAsk, SinkAnswer>(new URL('./sink.ts', import.meta.url)));
  const environment: Environment = {
    REDIS_URL: redis.url,
    ARCHIVE_BUCKET: 'weixin-media',
    S3_FORCE_PATH_STYLE: 'true',
    AWS_ENDPOINT_URL_S3: (await sink.ask({})).url,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'bench',
    AWS_SECRET_ACCESS_KEY: 'bench',
    WEIXIN_APP_ID: APP_ID,
    WEIXIN_APP_SECRET: APP_SECRET,
    WEIXIN_API_BASE_URL: (await origin.ask({ type: 'address' })).url,
    METRICS_PORT: '0',
  };
  const config: ConfigWithStore = loadConfig(environment, ['store', 'accounts']);
  const queue = parts.use(await openQueue(config));
  const moved = parts.move();
  return {
    origin,
    sink,
    queue,
    worker: async (env) => {
      const started = startWorkerProcess({ ...environment, ...env });
      await started.said('worker started');
      return measured(started);
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

function measured(worker: WorkerProcess): MeasuredWorker {
  const { pid } = worker.process;
  if (pid === undefined) throw new Error('the worker has no pid');
  const url = `${healthUrl(worker)}/metrics`;
  return {
    pid,
    metric: async (name) => {
      const text = await (await fetch(url)).text();
      return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? 0);
    },
    // What it leaves in Redis is flushed.
    [Symbol.asyncDispose]: () => worker.stop(0),
  };
}
