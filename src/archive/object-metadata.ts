import type { MediaJob } from '../media/media-job.ts';
import { extensionOfType } from '../media/media-type.ts';
import { kindPartitionOf } from '../store/object-keys.ts';
import type { MediaBody } from '../weixin/media-body.ts';

/** The version of the metadata below. */
const SCHEMA = '1';

type BodyFacts = Pick<MediaBody, 'declaredType' | 'sniffed' | 'namedExtension'>;

/** The type an object is served as: what its bytes say, else what WeChat says. */
export function contentTypeOf({ sniffed, declaredType }: BodyFacts): string {
  return sniffed?.mime ?? declaredType ?? 'application/octet-stream';
}

/** The extension of an object's key: what its bytes say, else its declared type, else its name. */
export function extensionOf({ sniffed, declaredType, namedExtension }: BodyFacts): string {
  return sniffed?.extension ?? extensionOfType(declaredType) ?? namedExtension ?? 'bin';
}

/**
 * The user metadata of an archived object. ASCII, no openId.
 *
 * @param sha256 known only for bodies that are held before they are sent.
 */
export function metadataOf(
  job: MediaJob,
  body: BodyFacts,
  archivedAt: string,
  sha256?: string,
): Record<string, string> {
  const messageId = job.source?.messageId;
  return {
    'app-id': job.appId,
    'media-id': job.mediaId,
    kind: kindPartitionOf(job),
    'received-at': job.receivedAt,
    'archived-at': archivedAt,
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(body.declaredType === undefined ? {} : { 'source-type': body.declaredType }),
    ...(messageId === undefined ? {} : { 'message-id': encodeURIComponent(messageId.toWellFormed()) }),
    schema: SCHEMA,
  };
}
