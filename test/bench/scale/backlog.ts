import { setTimeout as sleep } from 'node:timers/promises';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { laneOf } from '../../../src/queue/lane.ts';
import { SECOND } from '../../../src/time.ts';
import { eventually } from '../../support/eventually.ts';
import { SMALL } from '../speed/samples.ts';
import type { Rig } from './rig.ts';

/** Jobs in one call of the door. */
const BATCH = 1_000;
const LOOK_EVERY_MS = 10;
/** Workers that have archived nothing for so long are given up. */
const GIVE_UP_AFTER_MS = 30 * SECOND;

/** Hands in so many pictures of 64 KiB, of the rig's apps in turn. */
export async function enqueue({ queue, appIds, newMediaId }: Rig, count: number): Promise<void> {
  const receivedAt = new Date().toISOString();
  const sample = SMALL.samples[0]?.name ?? '';
  for (let from = 0; from < count; from += BATCH) {
    const batch = Array.from({ length: Math.min(BATCH, count - from) }, (_, index): MediaJob => {
      return { v: 1, appId: appIds[index % appIds.length] ?? '', mediaId: newMediaId(sample), receivedAt };
    });
    const { accepted } = await queue.door.admit(batch);
    if (accepted !== batch.length) throw new Error('not all jobs are new');
  }
}

/** While workers run and nobody hands in, each new one is an archived media. The outbox keeps a million of them at least. */
export function outboxEntries({ redis, queue }: Rig): Promise<number> {
  return redis.xlen(queue.keys.outbox);
}

/**
 * Waits until the outbox has so many entries. Resolves with how many it has.
 *
 * @throws Error when a worker has ended, or no entry comes for 30 s.
 */
export async function untilEntries(rig: Rig, wanted: number, lookEveryMs = LOOK_EVERY_MS): Promise<number> {
  let most = 0;
  let cameAt = performance.now();
  for (;;) {
    const entries = await outboxEntries(rig);
    if (entries >= wanted) return entries;
    for (const { exitCode, signalCode } of rig.workers.map(({ process: child }) => child))
      if (exitCode !== null || signalCode !== null) throw new Error(`a worker ended with ${exitCode ?? signalCode}`);
    if (entries > most) {
      most = entries;
      cameAt = performance.now();
    } else if (performance.now() - cameAt > GIVE_UP_AFTER_MS)
      throw new Error(`nothing was archived for 30 s: the outbox has ${entries} entries, ${wanted} are waited for`);
    await sleep(lookEveryMs);
  }
}

/** Waits until no job is queued or under way. The workers must run. */
export async function untilIdle({ queue, appIds }: Rig): Promise<void> {
  for (const appId of appIds) {
    const lane = queue.lanes.lane(laneOf(appId));
    await eventually(async () => {
      const { waiting, active, delayed } = await lane.counts();
      return waiting + active + delayed === 0 || undefined;
    });
  }
}
