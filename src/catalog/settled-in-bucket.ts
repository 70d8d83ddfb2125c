import type { MediaJob } from '../media/media-job.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { deadLetterKey, mediaKeyStem } from '../store/object-keys.ts';
import { letterRow } from './letter-row.ts';
import { unwrap } from './unwrap.ts';

/**
 * Looks into the bucket for what became of a media whose row there is not: it may have been lost with the outbox.
 * `undefined` when it is neither archived nor given up there.
 *
 * @throws FailureError
 */
export async function settledInBucket(
  { files, store }: { readonly files: BucketFiles; readonly store: Pick<ArchiveStore, 'find'> },
  job: MediaJob,
  signal: AbortSignal,
): Promise<'archived' | 'dead' | 'discarded' | undefined> {
  if (unwrap(await store.find(mediaKeyStem(job), signal)) !== undefined) return 'archived';
  switch ((await letterRow(files, deadLetterKey(job), signal))?.status) {
    case 'open':
      return 'dead';
    case 'discarded':
      return 'discarded';
    // One that was put back to work must be in the queue.
    default:
      return undefined;
  }
}
