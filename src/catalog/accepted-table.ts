import type { MediaJob } from '../media/media-job.ts';
import { kindPartitionOf } from '../store/object-keys.ts';
import { iso } from '../time.ts';
import type { Column, RowOf, Table } from './table.ts';

const COLUMNS = [
  { name: 'app_id', type: 'VARCHAR', nullable: false, meaning: 'The WeChat account.' },
  { name: 'media_id', type: 'VARCHAR', nullable: false, meaning: 'The media_id as WeChat gave it.' },
  { name: 'variant', type: 'VARCHAR', nullable: true, meaning: 'Another rendering of the media: `hd-voice`.' },
  { name: 'kind', type: 'VARCHAR', nullable: false, meaning: 'What the user sent; `unknown` when nobody said.' },
  {
    name: 'received_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: false,
    unit: 'UTC',
    meaning: 'When WeChat created the message. Its day is the partition `dt`.',
  },
  {
    name: 'accepted_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: false,
    unit: 'UTC',
    meaning: 'When it was taken in.',
  },
] as const satisfies readonly Column[];

/**
 * What was taken in, written before it is queued: what says what is missing when the queue is lost. A media may be
 * there more than once, and one that the queue then refused is there too.
 */
export const ACCEPTED_TABLE = {
  name: 'accepted',
  version: 1,
  columns: COLUMNS,
  identity: ['app_id', 'media_id', 'variant'],
  order: 'received_at',
} as const satisfies Table;

export type AcceptedRow = RowOf<typeof ACCEPTED_TABLE>;

export function acceptedRowOf(job: MediaJob, acceptedAt: number): AcceptedRow {
  return {
    app_id: job.appId,
    media_id: job.mediaId,
    variant: job.variant ?? null,
    kind: kindPartitionOf(job),
    received_at: iso(Date.parse(job.receivedAt)),
    accepted_at: iso(acceptedAt),
  };
}
