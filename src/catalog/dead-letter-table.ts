import type { DeadLetter } from '../dead-letter/dead-letter.ts';
import { mediaJobSchema } from '../media/media-job.ts';
import { iso } from '../time.ts';
import type { Column, RowOf, Table } from './table.ts';

const COLUMNS = [
  { name: 'app_id', type: 'VARCHAR', nullable: false, meaning: 'The WeChat account; `unknown` when a job named none.' },
  {
    name: 'media_id',
    type: 'VARCHAR',
    nullable: false,
    meaning: 'The media_id; of what was no MediaJob (`job-invalid`), the id it had in the queue.',
  },
  { name: 'variant', type: 'VARCHAR', nullable: true, meaning: 'Another rendering of the media: `hd-voice`.' },
  { name: 'kind', type: 'VARCHAR', nullable: true, meaning: 'What the user sent; null when nobody said.' },
  { name: 'key', type: 'VARCHAR', nullable: false, meaning: 'Where the whole letter lies in the bucket, as JSON.' },
  { name: 'reason', type: 'VARCHAR', nullable: false, meaning: 'Why the media was given up: a failure code.' },
  { name: 'status', type: 'VARCHAR', nullable: false, meaning: 'open, replayed, resolved or discarded.' },
  { name: 'errcode', type: 'INTEGER', nullable: true, meaning: "WeChat's errcode in the last attempt." },
  { name: 'errmsg', type: 'VARCHAR', nullable: true, meaning: "WeChat's errmsg in the last attempt." },
  { name: 'detail', type: 'VARCHAR', nullable: true, meaning: 'A sentence beside the codes.' },
  {
    name: 'received_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: true,
    unit: 'UTC',
    meaning: 'When WeChat created the message; null for what was no MediaJob.',
  },
  {
    name: 'first_attempt_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: true,
    unit: 'UTC',
    meaning: 'When it was first tried; null when never.',
  },
  {
    name: 'died_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: false,
    unit: 'UTC',
    meaning: 'When it was given up, the last time.',
  },
  {
    name: 'deadline',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: true,
    unit: 'UTC',
    meaning: 'When WeChat deletes it; null for what was no MediaJob.',
  },
  {
    name: 'attempts',
    type: 'INTEGER',
    nullable: false,
    unit: 'attempts',
    meaning: 'Failed attempts in all its lives.',
  },
  { name: 'replays', type: 'INTEGER', nullable: false, unit: 'replays', meaning: 'How often it was put back to work.' },
  {
    name: 'discarded_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: true,
    unit: 'UTC',
    meaning: 'When an operator decided that it needs no more.',
  },
  { name: 'archived_key', type: 'VARCHAR', nullable: true, meaning: 'Where a replay has archived the media.' },
  { name: 'message_id', type: 'VARCHAR', nullable: true, meaning: 'The message that brought it.' },
  { name: 'open_id', type: 'VARCHAR', nullable: true, meaning: 'The sender, as ARCHIVE_OPEN_ID keeps it.' },
] as const satisfies readonly Column[];

/** One row a dead letter, in its latest state. */
export const DEAD_LETTER_TABLE = {
  name: 'dead-letters',
  version: 1,
  columns: COLUMNS,
  identity: ['key'],
  order: 'died_at',
} as const satisfies Table;

export type DeadLetterRow = RowOf<typeof DEAD_LETTER_TABLE>;

/** Describes a letter. The document in the bucket says it all. */
export function deadLetterRowOf(key: string, letter: DeadLetter): DeadLetterRow {
  const job = letter.deadline === null ? undefined : mediaJobSchema.safeParse(letter.job).data;
  return {
    app_id: letter.appId,
    media_id: letter.mediaId,
    variant: job?.variant ?? null,
    kind: job?.kind ?? null,
    key,
    reason: letter.reason,
    status: letter.status,
    errcode: letter.errcode ?? null,
    errmsg: letter.errmsg ?? null,
    detail: letter.detail ?? null,
    received_at: job === undefined ? null : iso(Date.parse(job.receivedAt)),
    first_attempt_at: isoOrNull(letter.firstAttemptAt),
    died_at: iso(Date.parse(letter.diedAt)),
    deadline: isoOrNull(letter.deadline),
    attempts: letter.attempts.length + (letter.attemptsOmitted ?? 0),
    replays: letter.replays.length,
    discarded_at: isoOrNull(letter.discarded?.at ?? null),
    archived_key: letter.archivedKey ?? null,
    message_id: job?.source?.messageId ?? null,
    open_id: job?.source?.openId ?? null,
  };
}

/** What is no time, in a document that somebody has changed by hand, counts as none. */
function isoOrNull(text: string | null): string | null {
  const time = Date.parse(text ?? '');
  return Number.isNaN(time) ? null : iso(time);
}
