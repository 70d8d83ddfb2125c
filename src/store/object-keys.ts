import type { KindPartition } from '../media/kind.ts';
import type { MediaJob } from '../media/media-job.ts';

/** The UTC day of an ISO-8601 instant: `YYYY-MM-DD`. */
export function dayOf(instant: string): string {
  return new Date(instant).toISOString().slice(0, 10);
}

export function kindPartitionOf(job: Pick<MediaJob, 'kind'>): KindPartition {
  return job.kind ?? 'unknown';
}

/**
 * The key of a media without its extension, which is known only once the bytes are. Deterministic: doing a media twice
 * writes the same key.
 */
export function mediaKeyStem(job: MediaJob): string {
  return `media/app=${job.appId}/kind=${kindPartitionOf(job)}/dt=${dayOf(job.receivedAt)}/${nameOf(job)}`;
}

/** A variant is another media under the same id. */
function nameOf({ mediaId, variant }: Pick<MediaJob, 'mediaId' | 'variant'>): string {
  return variant === undefined ? mediaId : `${mediaId}.${variant}`;
}

/** @param extension lower-case letters and digits, without the dot. */
export function mediaKey(job: MediaJob, extension: string): string {
  return `${mediaKeyStem(job)}.${extension}`;
}

/** What a key says beyond the identity of the media: enough to make it again. */
export interface MediaPlace {
  readonly kind: string;
  readonly day: string;
  readonly extension: string;
}

/** Takes a media key apart; `undefined` for any other key. */
export function placeOfKey(key: string): MediaPlace | undefined {
  const [, kind, day, extension] = /^media\/app=[^/]+\/kind=([^/]+)\/dt=([^/]+)\/[^/]+\.([^./]+)$/.exec(key) ?? [];
  return kind === undefined || day === undefined || extension === undefined ? undefined : { kind, day, extension };
}

/** @param name the media id, with its variant if it has one. */
export function keyOfPlace(appId: string, name: string, { kind, day, extension }: MediaPlace): string {
  return `media/app=${appId}/kind=${kind}/dt=${day}/${name}.${extension}`;
}

export const DEAD_LETTER_PREFIX = 'dead-letters/';

export function deadLetterKey(job: MediaJob): string {
  return `${DEAD_LETTER_PREFIX}app=${job.appId}/dt=${dayOf(job.receivedAt)}/${nameOf(job)}.json`;
}

/** What a producer said of a media and does not fit into the metadata of its object. */
export function annotationsKey(job: Pick<MediaJob, 'appId' | 'mediaId' | 'variant' | 'receivedAt'>): string {
  return `annotations/app=${job.appId}/dt=${dayOf(job.receivedAt)}/${nameOf(job)}.json`;
}

/** What stands behind the last dot of a key. */
export function extensionOfKey(key: string): string {
  return key.slice(key.lastIndexOf('.') + 1);
}
