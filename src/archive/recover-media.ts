import { type Result, succeed } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import { type ArchiveStore, mayNotLook } from '../store/archive-store.ts';
import { mediaKeyStem } from '../store/object-keys.ts';
import type { ArchivedObject } from './archive-media.ts';

/**
 * Picks up what an attempt of a worker that died has left in the bucket: returns the media if it lies there whole, and
 * removes the parts of an upload that was under way.
 *
 * Asked before a media is tried again after such a death, and before any media is given up.
 *
 * @throws the signal's reason when it aborts.
 */
export async function recoverMedia(
  store: ArchiveStore,
  job: MediaJob,
  signal: AbortSignal,
): Promise<Result<ArchivedObject | undefined>> {
  const stem = mediaKeyStem(job);
  const abandoned = await store.abandonUploads(`${stem}.`, signal);
  if (!abandoned.ok && !mayNotLook(abandoned.failure)) return abandoned;
  const found = await store.find(stem, signal);
  if (!found.ok) return mayNotLook(found.failure) ? succeed(undefined) : found;
  if (found.value === undefined) return succeed(undefined);
  const { key, sizeBytes, metadata, contentType } = found.value;
  let sha256 = metadata['sha256'];
  if (sha256 === undefined) {
    const digest = await store.digest(key, signal);
    if (!digest.ok) return digest;
    if (digest.value === undefined) return succeed(undefined);
    sha256 = digest.value.sha256;
  }
  const declaredType = metadata['source-type'];
  return succeed({
    key,
    sizeBytes,
    sha256,
    contentType: contentType ?? 'application/octet-stream',
    created: false,
    ...(declaredType === undefined ? {} : { declaredType }),
  });
}
