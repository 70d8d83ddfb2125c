import { setTimeout as sleep } from 'node:timers/promises';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { SMALL } from '../speed/samples.ts';
import type { Rig } from './rig.ts';

/** Jobs in one call of the door. */
const BATCH = 1_000;
const LOOK_EVERY_MS = 10;

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

/** Waits until the outbox has so many entries. Resolves with how many it has. */
export async function untilEntries(rig: Rig, wanted: number): Promise<number> {
  for (;;) {
    const entries = await outboxEntries(rig);
    if (entries >= wanted) return entries;
    await sleep(LOOK_EVERY_MS);
  }
}
