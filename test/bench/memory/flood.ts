import { setTimeout as sleep } from 'node:timers/promises';
import { newMediaId } from '../../../src/demo/weixin/weixin-simulator.ts';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { laneOf } from '../../../src/queue/lane.ts';
import { iso, SECOND } from '../../../src/time.ts';
import { APP_ID, testJob } from '../../support/jobs.ts';
import type { Environment } from '../../support/stack.ts';
import { usedMemory } from '../used-memory.ts';
import { processMemory } from './process-memory.ts';
import type { Rig } from './rig.ts';

/** What a flood of jobs does to the worker, and to Redis. */
export interface FloodRow {
  /** Jobs that were handed in at first: half of them before the worker started, half while it worked. */
  readonly jobs: number;
  readonly jobsPerSecond: number;
  /** Of Redis, for each waiting job. */
  readonly redisBytesPerJob: number;
  /** At the end, with the worker still at work. */
  readonly waiting: number;
  readonly archived: number;
  /** Of the worker, resident: ready, at the end, and the most ever. */
  readonly idleBytes: number;
  readonly endBytes: number;
  readonly peakBytes: number;
}

/** Jobs in one call of the door: a producer's batch. */
const BATCH = 5_000;
const TOP_UP_EVERY_MS = 100;

/** Every media that is asked for: a small GIF. Nobody keeps a million media to send. */
const ANY_MEDIA = {
  endpoint: 'media',
  action: { type: 'text', contentType: 'image/gif', body: `GIF89a${'\u0001'.repeat(200)};` },
} as const;

/**
 * Hands in `count` jobs of one app, half of them to a worker that is at work on them, and half of that again whenever
 * fewer are left, until the worker has archived `archive` media.
 */
export async function runFlood(rig: Rig, count: number, archive: number, env: Environment): Promise<FloodRow> {
  const { queue } = rig;
  await queue.redis.flushall();
  await rig.origin.ask({ type: 'faults', faults: [ANY_MEDIA] });
  await rig.sink.ask({});

  const half = Math.ceil(count / 2);
  const before = await usedMemory(queue.redis);
  const startedAt = performance.now();
  await handIn(rig, half);
  const enqueuedInMs = performance.now() - startedAt;
  const redisBytesPerJob = ((await usedMemory(queue.redis)) - before) / half;

  await using worker = await rig.worker({ WORKER_CONCURRENCY: '32', ...env });
  const idleBytes = processMemory(worker.pid).residentBytes;
  await handIn(rig, count - half);
  for (;;) {
    const { waiting } = await queue.lanes.lane(laneOf(APP_ID)).counts();
    const archived = await worker.metric('weixin_media_archived_total');
    if (archived >= archive) {
      const { residentBytes: endBytes, peakBytes } = processMemory(worker.pid);
      const jobsPerSecond = (half / enqueuedInMs) * SECOND;
      return { jobs: count, jobsPerSecond, redisBytesPerJob, waiting, archived, idleBytes, endBytes, peakBytes };
    }
    if (waiting < half) await handIn(rig, half);
    await sleep(TOP_UP_EVERY_MS);
  }
}

async function handIn({ queue }: Rig, count: number): Promise<void> {
  const receivedAt = iso(Date.now());
  const job = (): MediaJob =>
    testJob({ mediaId: newMediaId(), receivedAt, source: { messageId: '6089239057186927631' } });
  for (let left = count; left > 0; left -= BATCH) {
    const { accepted } = await queue.door.admit(Array.from({ length: Math.min(left, BATCH) }, job));
    if (accepted === 0) throw new Error('the door has taken nothing');
  }
}
