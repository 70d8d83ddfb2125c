import type { Failure } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import { type ArchiveStore, mayNotLook } from '../store/archive-store.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { annotationsKey, mediaKeyStem } from '../store/object-keys.ts';

/**
 * Removes what an attempt has left in the bucket of a media that was erased while it was under way: the object with all
 * its versions, its annotations, and the parts of an upload. Harmless to repeat.
 *
 * @throws the signal's reason when it aborts.
 */
export async function forgetMedia(
  store: Pick<ArchiveStore, 'abandonUploads' | 'find'>,
  files: Pick<BucketFiles, 'removeVersions'>,
  job: MediaJob,
  signal: AbortSignal,
): Promise<Failure | undefined> {
  const stem = mediaKeyStem(job);
  const abandoned = await store.abandonUploads(`${stem}.`, signal);
  if (!abandoned.ok && !mayNotLook(abandoned.failure)) return abandoned.failure;
  const found = await store.find(stem, signal);
  if (!found.ok) return found.failure;
  const keys = [annotationsKey(job), ...(found.value === undefined ? [] : [found.value.key])];
  for (const key of keys) {
    const removed = await files.removeVersions(key, signal);
    if (!removed.ok) return removed.failure;
  }
  return undefined;
}
