import type { DeadLetter } from '../dead-letter/dead-letter.ts';
import type { MediaJob } from '../media/media-job.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import type { Clock } from '../time.ts';
import { ACCEPTED_TABLE, acceptedRowOf } from './accepted-table.ts';
import { DEAD_LETTER_TABLE, type DeadLetterRow, deadLetterRowOf } from './dead-letter-table.ts';
import { DERIVED_TABLE, type DerivedRow } from './derived-table.ts';
import { MEDIA_TABLE, type MediaRow } from './media-table.ts';
import { type AnyRow, packRow, schemaOf, type Table } from './table.ts';

/**
 * The outbox holds as many entries at most, some 500 bytes each, and drops the oldest beyond: a catalog process that
 * does not run must not fill Redis. What is dropped is made up for when its day is closed, from the bucket.
 */
export const MAX_OUTBOX_ENTRIES = 1_000_000;

/** One entry of the stream, as it is written: names and values in turn. */
export type OutboxFields = readonly [t: 't', schema: string, r: 'r', rows: string, ...mayBeThere: string[]];

/**
 * Where the rows of the catalog lie until they are in the bucket: a Redis stream, written before a job is completed.
 */
export interface Outbox {
  /** Notes jobs as accepted, before they are queued: one entry for all. They are of one app. */
  accepted(jobs: readonly MediaJob[]): Promise<void>;
  /** Notes the state of a dead letter, after it was written to the bucket. */
  deadLetter(row: DeadLetterRow): Promise<void>;
  derived(row: DerivedRow): Promise<void>;
}

export function createOutbox(redis: RedisClient, keys: RedisKeys, now: Clock): Outbox {
  async function append(fields: OutboxFields): Promise<void> {
    await redis.xadd(keys.outbox, 'MAXLEN', '~', MAX_OUTBOX_ENTRIES, '*', ...fields).catch((error: unknown) => {
      // Somebody has put something else there: the catalog process says so, and media go on.
      if (!(error instanceof Error && error.message.startsWith('WRONGTYPE'))) throw error;
    });
  }

  return {
    accepted: async (jobs) => {
      if (jobs.length === 0) return;
      const at = now();
      await append(
        entryOf(
          ACCEPTED_TABLE,
          jobs.map((job) => acceptedRowOf(job, at)),
        ),
      );
    },
    deadLetter: (row) => append(entryOf(DEAD_LETTER_TABLE, [row])),
    derived: (row) => append(entryOf(DERIVED_TABLE, [row], true)),
  };
}

/** What waits to be written to the catalog. */
export interface OutboxDepth {
  readonly entries: number;
  /** Since when the first of them waits, as a Unix time in milliseconds; absent when nothing waits. */
  readonly since?: number;
}

export async function readOutboxDepth(redis: RedisClient, { outbox }: RedisKeys): Promise<OutboxDepth> {
  const [entries, first] = await Promise.all([redis.xlen(outbox), redis.xrange(outbox, '-', '+', 'COUNT', 1)]);
  const since = Number(first[0]?.[0].split('-')[0]);
  return { entries, ...(Number.isNaN(since) ? {} : { since }) };
}

/** What dead letters tell of each new state. */
export function announceTo(outbox: Pick<Outbox, 'deadLetter'>): (key: string, letter: DeadLetter) => Promise<void> {
  return (key, letter) => outbox.deadLetter(deadLetterRowOf(key, letter));
}

/** @param mayBeThere true for what the bucket held already: the catalog may have its row. */
export function mediaEntryOf(row: MediaRow, mayBeThere: boolean): OutboxFields {
  return entryOf(MEDIA_TABLE, [row], mayBeThere);
}

function entryOf(table: Table, rows: readonly AnyRow[], mayBeThere = false): OutboxFields {
  const packed = JSON.stringify(rows.map((row) => packRow(table, row)));
  return ['t', schemaOf(table), 'r', packed, ...(mayBeThere ? ['s', '1'] : [])];
}
