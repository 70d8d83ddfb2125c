import type { ArchivedObject } from '../archive/archive-media.ts';
import { factsOf } from '../archive/object-metadata.ts';
import { extensionOfKey } from '../store/object-keys.ts';
import { iso, SECOND } from '../time.ts';
import type { Column, RowOf, Table } from './table.ts';

const COLUMNS = [
  { name: 'app_id', type: 'VARCHAR', nullable: false, meaning: 'The WeChat account.' },
  { name: 'media_id', type: 'VARCHAR', nullable: false, meaning: 'The media_id as WeChat gave it.' },
  { name: 'variant', type: 'VARCHAR', nullable: true, meaning: 'Another rendering of the media: `hd-voice`.' },
  {
    name: 'kind',
    type: 'VARCHAR',
    nullable: false,
    meaning: 'What the user sent: image, voice, video, thumb, file; `unknown` when nobody said.',
  },
  { name: 'key', type: 'VARCHAR', nullable: false, meaning: 'Where the object lies in the bucket.' },
  { name: 'size_bytes', type: 'BIGINT', nullable: false, unit: 'bytes', meaning: 'The length of the object.' },
  {
    name: 'sha256',
    type: 'VARCHAR',
    nullable: false,
    meaning: 'SHA-256 of the bytes, computed as they arrived: 64 lower-case hexadecimal digits.',
  },
  {
    name: 'content_type',
    type: 'VARCHAR',
    nullable: false,
    meaning: 'The type the object is served as: the sniffed one, else the declared one.',
  },
  { name: 'declared_type', type: 'VARCHAR', nullable: true, meaning: 'The type that WeChat declared.' },
  { name: 'sniffed_type', type: 'VARCHAR', nullable: true, meaning: 'The type that the first bytes tell.' },
  { name: 'extension', type: 'VARCHAR', nullable: false, meaning: 'The extension of the key, without the dot.' },
  {
    name: 'received_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: false,
    unit: 'UTC',
    meaning: 'When WeChat created the message. Its day is the partition `dt`.',
  },
  {
    name: 'enqueued_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: true,
    unit: 'UTC',
    meaning: 'When the media was queued.',
  },
  {
    name: 'started_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: true,
    unit: 'UTC',
    meaning: 'When the attempt that archived it began.',
  },
  {
    name: 'archived_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: false,
    unit: 'UTC',
    meaning: 'When its bytes were there and the write to the bucket began.',
  },
  {
    name: 'deadline',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: true,
    unit: 'UTC',
    meaning: 'When WeChat would have deleted it.',
  },
  {
    name: 'margin_seconds',
    type: 'DOUBLE',
    nullable: true,
    unit: 'seconds',
    meaning: 'From `archived_at` to `deadline`; negative when it was late.',
  },
  {
    name: 'attempts',
    type: 'INTEGER',
    nullable: true,
    unit: 'attempts',
    meaning: 'How many it took, the one that archived it included.',
  },
  {
    name: 'message_id',
    type: 'VARCHAR',
    nullable: true,
    meaning: 'The message that brought it, as the producer said.',
  },
  {
    name: 'open_id',
    type: 'VARCHAR',
    nullable: true,
    meaning: 'The sender, as ARCHIVE_OPEN_ID keeps it: nothing, a pseudonym (`hmac-sha256:…`), or the openId.',
  },
  {
    name: 'labels',
    type: 'MAP(VARCHAR, VARCHAR)',
    nullable: true,
    meaning: 'What the producer wrote on it; null when nothing.',
  },
  { name: 'worker_version', type: 'VARCHAR', nullable: true, meaning: 'The version of the worker that archived it.' },
  { name: 'etag', type: 'VARCHAR', nullable: true, meaning: "The store's own ETag of the object, without quotes." },
] as const satisfies readonly Column[];

/** One row a media in the bucket. */
export const MEDIA_TABLE = {
  name: 'media',
  version: 1,
  columns: COLUMNS,
  identity: ['app_id', 'media_id', 'variant'],
  order: 'received_at',
} as const satisfies Table;

export type MediaRow = RowOf<typeof MEDIA_TABLE>;

/**
 * Describes an archived object. The object alone says it all, so that a catalog made anew from the bucket has the same
 * rows. `undefined` for an object whose metadata are not ours.
 */
export function mediaRowOf(object: Omit<ArchivedObject, 'created'>): MediaRow | undefined {
  const said = factsOf(object.metadata);
  if (said === undefined) return undefined;
  const facts = { ...said, ...object.annotations };
  const { key, sizeBytes, sha256, contentType, etag } = object;
  return {
    app_id: facts.appId,
    media_id: facts.mediaId,
    variant: facts.variant ?? null,
    kind: facts.kind,
    key,
    size_bytes: sizeBytes,
    sha256,
    content_type: contentType,
    declared_type: facts.declaredType ?? null,
    sniffed_type: facts.sniffedType ?? null,
    extension: extensionOfKey(key),
    received_at: iso(facts.receivedAt),
    enqueued_at: isoOrNull(facts.enqueuedAt),
    started_at: isoOrNull(facts.startedAt),
    archived_at: iso(facts.archivedAt),
    deadline: isoOrNull(facts.deadline),
    margin_seconds: facts.deadline === undefined ? null : (facts.deadline - facts.archivedAt) / SECOND,
    attempts: facts.attempts ?? null,
    message_id: facts.messageId ?? null,
    open_id: facts.openId ?? null,
    labels: facts.labels ?? null,
    worker_version: facts.workerVersion ?? null,
    etag: etag ?? null,
  };
}

function isoOrNull(timeMs: number | undefined): string | null {
  return timeMs === undefined ? null : iso(timeMs);
}
