import { type Result, succeed } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import { type ArchiveStore, mayNotLook, type StoredObject } from '../store/archive-store.ts';
import { annotationsKey, mediaKeyStem } from '../store/object-keys.ts';
import { iso } from '../time.ts';
import type { ArchivedObject } from './archive-media.ts';
import { type Annotations, annotationsOf, factsOf } from './object-metadata.ts';

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
  return archivedObject(store, found.value, signal);
}

/**
 * Completes what the store tells of an object to what is known of one that has just been archived. `undefined` when it is
 * gone meanwhile.
 */
export async function archivedObject(
  store: Pick<ArchiveStore, 'digest' | 'readJson'>,
  { key, sizeBytes, metadata, contentType = 'application/octet-stream', etag }: StoredObject,
  signal: AbortSignal,
): Promise<Result<ArchivedObject | undefined>> {
  let sha256 = metadata['sha256'];
  if (sha256 === undefined) {
    const digest = await store.digest(key, signal);
    if (!digest.ok) return digest;
    if (digest.value === undefined) return succeed(undefined);
    sha256 = digest.value.sha256;
  }
  const facts = factsOf(metadata);
  let annotations: Annotations | undefined;
  if (facts?.hasAnnotationsApart === true) {
    const { appId, mediaId, variant, receivedAt } = facts;
    const read = await store.readJson(annotationsKey({ appId, mediaId, variant, receivedAt: iso(receivedAt) }), signal);
    if (!read.ok) return read;
    annotations = annotationsOf(read.value);
  }
  return succeed({
    key,
    sizeBytes,
    sha256,
    contentType,
    metadata,
    ...(annotations === undefined ? {} : { annotations }),
    ...(etag === undefined ? {} : { etag }),
    created: false,
  });
}
