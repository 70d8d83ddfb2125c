import { appendFile } from 'node:fs/promises';
import { dayOf } from '../store/object-keys.ts';
import { type Partition, partitionPrefix } from './catalog-keys.ts';
import type { OutboxBatch } from './outbox-reader.ts';
import { lineOf, localPath } from './parquet.ts';
import type { AnyRow, Table } from './table.ts';

/** The rows of a batch that go to one partition, as lines of JSON on this machine's disk. */
export interface Spooled {
  readonly partition: Partition;
  readonly table: Table;
  /** Where they lie: see `lineOf`. */
  readonly path: string;
  /** True when some of them may be in the bucket. */
  readonly mayBeThere: boolean;
}

/** Rows are parsed and written so many at a time. */
const ROWS_AT_ONCE = 2_000;

/**
 * Groups the rows of a batch by the partition they go to. Of the rows of one media the first counts.
 *
 * The rows go to disk as they come: a batch of 50,000 would take 300 MiB as objects.
 */
export async function spool(
  { entries, isRepeated }: Pick<OutboxBatch, 'entries' | 'isRepeated'>,
  folder: string,
): Promise<Spooled[]> {
  const found = new Map<string, { -readonly [K in keyof Spooled]: Spooled[K] }>();
  const seen = new Set<string>();
  let lines = new Map<string, string[]>();
  let waiting = 0;

  async function write(): Promise<void> {
    for (const [path, some] of lines) await appendFile(path, some.join(''));
    lines = new Map();
    waiting = 0;
  }

  for await (const { table, rows, mayBeThere } of entries) {
    for (const row of rows) {
      const partition = partitionOf(table, row);
      // The states of a letter follow each other: the last counts, and whoever merges them looks for it.
      if (table.name !== 'dead-letters') {
        const identity = JSON.stringify([table.name, ...table.identity.map((name) => row[name])]);
        if (seen.has(identity)) continue;
        seen.add(identity);
      }
      const prefix = partitionPrefix(partition);
      let group = found.get(prefix);
      if (group === undefined) {
        group = { partition, table, path: `${localPath(folder, prefix)}.ndjson`, mayBeThere: false };
        found.set(prefix, group);
      }
      group.mayBeThere ||= mayBeThere || isRepeated;
      const line = lineOf({ row, mayBeThere: mayBeThere || isRepeated });
      const some = lines.get(group.path);
      if (some === undefined) lines.set(group.path, [line]);
      else some.push(line);
      waiting += 1;
      if (waiting >= ROWS_AT_ONCE) await write();
    }
  }
  await write();
  return [...found.values()];
}

/** Where a row belongs. */
export function partitionOf(table: Table, row: AnyRow): Partition {
  const app = String(row['app_id']);
  switch (table.name) {
    case 'accepted':
      return { table: 'accepted', dt: dayOf(String(row['received_at'])) };
    case 'dead-letters': {
      // What was no MediaJob has no day of its own; its letter lies below one.
      const [, dt = ''] = /\/dt=(\d{4}-\d{2}-\d{2})\//.exec(String(row['key'])) ?? [];
      return { table: 'dead-letters', dt: dt === '' ? dayOf(String(row['died_at'])) : dt, app };
    }
    default:
      return { table: table.name, dt: dayOf(String(row['received_at'])), app };
  }
}
