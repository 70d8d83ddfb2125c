import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadConfig } from '../../../src/config.ts';
import { startWorkerProcess } from '../../../src/demo/worker-process.ts';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { openQueue } from '../../../src/operate/open-queue.ts';
import { laneOf } from '../../../src/queue/lane.ts';
import { PARTS_HELD } from '../../../src/store/archive-store.ts';
import { startHelper } from '../helper-process.ts';
import { cpuTimeMs, endedChildrenMs } from './cpu-time.ts';
import { median } from './results.ts';
import type { Places, RunAnswer, RunRequest } from './subjects/subject.ts';

/** One way of getting media from the origin to the store, in a process of its own that is warm. */
export interface Contender extends AsyncDisposable {
  /** Archives these media, each of them once. Resolves with how long it took and what it cost the process. */
  run(mediaIds: readonly string[]): Promise<RunCost>;
}

export interface RunCost {
  readonly seconds: number;
  /** CPU time of the process itself. */
  readonly cpuMs: number;
}

export type ContenderName = 'floor' | 'sdk-loop' | 'sdk-script' | 'ours' | 'rclone';

export const CONTENDERS: readonly ContenderName[] = ['floor', 'ours', 'rclone', 'sdk-loop', 'sdk-script'];

export interface Surroundings extends Places {
  /** ARCHIVE_PART_SIZE of the worker. */
  readonly partSizeBytes: number;
  /** NODE_OPTIONS of the worker. */
  readonly nodeOptions: string;
  readonly folder: string;
  readonly rclone?: string;
  /** A folder for CPU profiles of the worker. */
  readonly profiles?: string;
}

export async function openContender(name: ContenderName, places: Surroundings): Promise<Contender> {
  if (name === 'ours') return openOurs(places);
  if (name === 'rclone') return openRclone(places);
  const helper = startHelper<RunRequest, RunAnswer>(new URL(`subjects/${name}.ts`, import.meta.url), [
    JSON.stringify(places satisfies Places),
  ]);
  return {
    run: async (mediaIds) => {
      const before = cpuTimeMs(helper.pid);
      const { seconds } = await helper.ask({ mediaIds });
      return { seconds, cpuMs: cpuTimeMs(helper.pid) - before };
    },
    [Symbol.asyncDispose]: () => helper[Symbol.asyncDispose](),
  };
}

const DEFAULT_BUDGET_BYTES = 256 * 2 ** 20;
const EMPTY_RUNS = 5;
const APP_ID = 'wx0123456789abcdef';
/** How often it is looked whether all is done. */
const LOOK_EVERY_MS = 10;

/**
 * The real worker: jobs that lie in Redis, from the moment it may begin until the last is completed, with the rows for the
 * catalog. It is stopped while they are handed in.
 */
async function openOurs(places: Surroundings): Promise<Contender> {
  const profiling = places.profiles === undefined ? '' : `--cpu-prof --cpu-prof-dir=${places.profiles}`;
  const environment = {
    REDIS_URL: places.redis,
    ARCHIVE_BUCKET: places.bucket,
    ARCHIVE_PART_SIZE: String(places.partSizeBytes),
    WORKER_MEMORY_BUDGET: String(Math.max(DEFAULT_BUDGET_BYTES, PARTS_HELD * places.partSizeBytes)),
    S3_FORCE_PATH_STYLE: 'true',
    AWS_ENDPOINT_URL_S3: places.store,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: places.accessKeyId,
    AWS_SECRET_ACCESS_KEY: places.secretAccessKey,
    WEIXIN_APP_ID: APP_ID,
    WEIXIN_APP_SECRET: 'secret-of-the-bench',
    WEIXIN_API_BASE_URL: places.origin,
    WORKER_CONCURRENCY: String(places.concurrency),
    METRICS_PORT: '0',
    NODE_OPTIONS: `${places.nodeOptions} ${profiling}`.trim(),
  };
  await using parts = new AsyncDisposableStack();
  const log = openSync(join(places.folder, 'worker.log'), 'a');
  parts.defer(() => closeSync(log));
  const worker = startWorkerProcess(environment, log);
  const pid = worker.process.pid ?? 0;
  parts.defer(() => {
    worker.process.kill('SIGCONT');
    return worker.stop();
  });
  const queue = parts.use(await openQueue(loadConfig(environment, ['accounts'])));
  const lane = queue.lanes.lane(laneOf(APP_ID));
  const moved = parts.move();
  return {
    run: async (mediaIds) => {
      worker.process.kill('SIGSTOP');
      const receivedAt = new Date().toISOString();
      const jobs = mediaIds.map((mediaId): MediaJob => ({ v: 1, appId: APP_ID, mediaId, receivedAt }));
      for (let from = 0; from < jobs.length; from += 500) {
        const { accepted } = await queue.door.admit(jobs.slice(from, from + 500));
        if (accepted !== Math.min(500, jobs.length - from)) throw new Error('not all jobs are new');
      }
      const before = cpuTimeMs(pid);
      const startedAt = performance.now();
      worker.process.kill('SIGCONT');
      for (;;) {
        const { waiting, delayed, active } = await lane.counts();
        const { exitCode, signalCode } = worker.process;
        if (exitCode !== null || signalCode !== null)
          throw new Error(`the worker ended with ${exitCode ?? signalCode}`);
        if (delayed > 0) throw new Error('a media could not be archived at once');
        if (waiting + active === 0) break;
        await sleep(LOOK_EVERY_MS);
      }
      const seconds = (performance.now() - startedAt) / 1_000;
      const cpuMs = cpuTimeMs(pid) - before;
      const keys = await queue.markers.find(mediaIds.map((mediaId) => `${APP_ID}-${mediaId}`));
      if (keys.includes(undefined)) throw new Error('not all media are archived');
      return { seconds, cpuMs };
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

/**
 * rclone copies the same files from the same origin, without a look at what lies at the target. It starts anew for each
 * run: what that costs is measured with nothing to copy, as the median of a few runs, and taken off.
 */
async function openRclone(places: Surroundings): Promise<Contender> {
  const { rclone, folder, bucket, concurrency } = places;
  if (rclone === undefined) throw new Error('rclone is not there');
  const list = join(folder, 'rclone.txt');
  const s3 = `:s3,provider=Other,env_auth=true,force_path_style=true,region=us-east-1,endpoint="${places.store}":${bucket}`;
  const flags = [
    '--config',
    '/dev/null',
    '--files-from-raw',
    list,
    '--no-traverse',
    '--no-check-dest',
    '--ignore-checksum',
  ];
  const more = ['--s3-no-head', '--s3-no-check-bucket', '--checkers', String(concurrency), '--retries', '1'];

  async function copy(files: readonly string[]): Promise<RunCost> {
    await writeFile(list, files.map((file) => `${file}\n`).join(''));
    const args = [
      'copy',
      `:http,url="${places.origin}/files/":`,
      s3,
      '--transfers',
      String(concurrency),
      ...flags,
      ...more,
    ];
    // Nothing else ends while it runs.
    const before = endedChildrenMs();
    const startedAt = performance.now();
    const child = spawn(rclone ?? '', args, {
      stdio: ['ignore', 'ignore', 'pipe'],
      // rclone does not start where AWS_CA_BUNDLE names a file that it can't use.
      env: { HOME: folder, AWS_ACCESS_KEY_ID: places.accessKeyId, AWS_SECRET_ACCESS_KEY: places.secretAccessKey },
    });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-2_000);
    });
    const [code] = (await once(child, 'exit')) as [number | null];
    if (code !== 0) throw new Error(`rclone ended with ${code}: ${said}`);
    return { seconds: (performance.now() - startedAt) / 1_000, cpuMs: endedChildrenMs() - before };
  }

  const empty: RunCost[] = [];
  for (let left = EMPTY_RUNS; left > 0; left -= 1) empty.push(await copy([]));
  const start = { seconds: median(empty.map((run) => run.seconds)), cpuMs: median(empty.map((run) => run.cpuMs)) };
  return {
    run: async (mediaIds) => {
      const { seconds, cpuMs } = await copy(mediaIds);
      return { seconds: seconds - start.seconds, cpuMs: cpuMs - start.cpuMs };
    },
    [Symbol.asyncDispose]: async () => undefined,
  };
}
