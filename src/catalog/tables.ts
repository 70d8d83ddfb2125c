import { ACCEPTED_TABLE } from './accepted-table.ts';
import { DEAD_LETTER_TABLE } from './dead-letter-table.ts';
import { DERIVED_TABLE } from './derived-table.ts';
import { MEDIA_TABLE } from './media-table.ts';
import type { Table, TableName } from './table.ts';

export const TABLES = {
  media: MEDIA_TABLE,
  'dead-letters': DEAD_LETTER_TABLE,
  accepted: ACCEPTED_TABLE,
  derived: DERIVED_TABLE,
} as const satisfies Record<TableName, Table>;
