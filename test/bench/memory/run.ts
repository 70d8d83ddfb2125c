import { setTimeout as sleep } from 'node:timers/promises';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { MINUTE, SECOND } from '../../../src/time.ts';
import type { Environment } from '../../support/stack.ts';
import { processMemory } from './process-memory.ts';
import type { MeasuredWorker, Rig } from './rig.ts';
import type { Scenario } from './scenarios.ts';

/** What a worker has said of itself, ten times a second. */
interface Seen {
  /** The most of the budget that was in use. */
  readonly usedBytes: number;
  /** The most jobs at once. */
  readonly inFlight: number;
  readonly archived: number;
}

/** What a worker has needed at most. */
export interface Row extends Seen {
  readonly scenario: string;
  readonly budgetBytes: number;
  readonly archivedBytes: number;
  readonly seconds: number;
  /** Resident memory: ready and idle, and the most ever. */
  readonly idleBytes: number;
  readonly peakBytes: number;
}

const SAMPLE_EVERY_MS = 100;
/** An idle worker is watched for so long. */
const IDLE_MS = 2 * SECOND;
/** A worker that has not done its work by then is given up. */
const TIMEOUT_MS = 3 * MINUTE;

/**
 * Runs one worker, a fresh process, through a scenario, and kills it.
 *
 * @param jobs of the media, which the origin has.
 * @param env further variables of the worker.
 * @throws Error when it takes too long.
 */
export async function runScenario(
  rig: Rig,
  scenario: Scenario,
  jobs: readonly MediaJob[],
  env: Environment,
): Promise<Row> {
  const { name, concurrency, budgetBytes, sent, storeBytesPerSecond } = scenario;
  await rig.queue.redis.flushall();
  await rig.origin.ask({
    type: 'faults',
    faults: sent === undefined ? [] : [{ endpoint: 'media', action: sent }],
  });
  await rig.sink.ask(storeBytesPerSecond === undefined ? {} : { bytesPerSecond: storeBytesPerSecond });
  await using worker = await rig.worker({
    WORKER_CONCURRENCY: String(concurrency),
    WORKER_MEMORY_BUDGET: String(budgetBytes),
    ...env,
  });
  const idleBytes = processMemory(worker.pid).residentBytes;
  const startedAt = performance.now();
  await rig.queue.door.admit(jobs);
  const seen = await watch(worker, scenario.archive ?? jobs.length);
  return {
    scenario: name,
    budgetBytes,
    ...seen,
    archivedBytes: await worker.metric('weixin_media_bytes_total'),
    seconds: (performance.now() - startedAt) / SECOND,
    idleBytes,
    peakBytes: processMemory(worker.pid).peakBytes,
  };
}

/** Looks at a worker until it has archived `count` media. */
async function watch(worker: MeasuredWorker, count: number): Promise<Seen> {
  const startedAt = performance.now();
  let usedBytes = 0;
  let inFlight = 0;
  for (;;) {
    const archived = await worker.metric('weixin_media_archived_total');
    usedBytes = Math.max(usedBytes, await worker.metric('weixin_media_memory_budget_used_bytes'));
    inFlight = Math.max(inFlight, await worker.metric('weixin_media_in_flight'));
    const elapsedMs = performance.now() - startedAt;
    if (archived >= count && (count > 0 || elapsedMs > IDLE_MS)) return { usedBytes, inFlight, archived };
    if (elapsedMs > TIMEOUT_MS) throw new Error(`only ${archived} of ${count} media after ${TIMEOUT_MS} ms`);
    await sleep(SAMPLE_EVERY_MS);
  }
}
