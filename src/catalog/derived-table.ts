import type { Column, RowOf, Table } from './table.ts';

const COLUMNS = [
  { name: 'app_id', type: 'VARCHAR', nullable: false, meaning: 'The WeChat account.' },
  { name: 'media_id', type: 'VARCHAR', nullable: false, meaning: 'The media it was made from.' },
  { name: 'variant', type: 'VARCHAR', nullable: true, meaning: 'Which rendering of that media.' },
  { name: 'name', type: 'VARCHAR', nullable: false, meaning: 'What it is: `voice.mp3`, `thumbnail.jpg`.' },
  { name: 'key', type: 'VARCHAR', nullable: false, meaning: 'Where it lies in the bucket.' },
  { name: 'size_bytes', type: 'BIGINT', nullable: false, unit: 'bytes', meaning: 'Its length.' },
  { name: 'sha256', type: 'VARCHAR', nullable: false, meaning: 'SHA-256 of its bytes, in hexadecimal digits.' },
  { name: 'content_type', type: 'VARCHAR', nullable: false, meaning: 'The type it is served as.' },
  { name: 'source_key', type: 'VARCHAR', nullable: false, meaning: 'The object that it was made from.' },
  { name: 'source_sha256', type: 'VARCHAR', nullable: false, meaning: 'SHA-256 of the bytes that it was made from.' },
  { name: 'recipe', type: 'VARCHAR', nullable: false, meaning: 'How it was made, with a version: `voice-mp3/1`.' },
  { name: 'tool', type: 'VARCHAR', nullable: false, meaning: 'What made it, with its version.' },
  {
    name: 'received_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: false,
    unit: 'UTC',
    meaning: 'When WeChat created the message of the source. Its day is the partition `dt`.',
  },
  {
    name: 'derived_at',
    type: 'TIMESTAMP WITH TIME ZONE',
    nullable: false,
    unit: 'UTC',
    meaning: 'When it was made.',
  },
] as const satisfies readonly Column[];

/** One row a file that was made from a media. */
export const DERIVED_TABLE = {
  name: 'derived',
  version: 1,
  columns: COLUMNS,
  identity: ['key'],
  order: 'received_at',
} as const satisfies Table;

export type DerivedRow = RowOf<typeof DERIVED_TABLE>;
