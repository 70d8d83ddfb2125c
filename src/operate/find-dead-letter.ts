import type { DeadLetterIndex } from '../dead-letter/dead-letter-index.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';

/**
 * Returns the key of a media's dead letter: from the index, else by looking through the bucket, since letters that are no
 * longer open are not in the index.
 */
export async function findDeadLetterKey(
  index: DeadLetterIndex,
  store: ArchiveStore,
  appId: string,
  mediaId: string,
  signal: AbortSignal,
): Promise<string | undefined> {
  // What was no MediaJob goes by the id that it had in the queue.
  for (const jobId of [`${appId}-${mediaId}`, mediaId]) {
    const summary = await index.get(jobId);
    if (summary?.appId === appId) return summary.key;
  }
  let newest: string | undefined;
  for await (const { key } of store.list(`${DEAD_LETTER_PREFIX}app=${appId}/`, signal)) {
    if (key.endsWith(`/${mediaId}.json`)) newest = key;
  }
  return newest;
}
