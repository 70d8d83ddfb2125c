import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { type AnyRow, type Table, unpackRow } from './table.ts';
import { TABLES } from './tables.ts';

const GROUP = 'catalog';
/** Entries in one command to Redis. */
const PAGE = 1_000;
/** Entries read at once: one of what was accepted holds up to 500 rows, and a batch is to be little more than asked for. */
const READ_PAGE = 100;

/** What one entry of the outbox says. */
export interface OutboxEntry {
  /** Of the stream: `<ms>-<seq>`. */
  readonly id: string;
  readonly table: Table;
  readonly rows: readonly AnyRow[];
  /** True for what the catalog may have already. */
  readonly mayBeThere: boolean;
}

export interface OutboxBatch {
  /**
   * In their order, read page by page as they are asked for: 50,000 of them would take 100 MiB. One that has been removed
   * since is left out.
   *
   * @throws NewerRowsError
   */
  readonly entries: AsyncIterable<OutboxEntry>;
  /** The ids of all entries, those that nobody can read included. */
  readonly ids: readonly string[];
  /** The ids of those that nobody can read, as far as `entries` were read. */
  readonly unreadable: readonly string[];
  /** True for a batch that was taken before: some of it may be in the bucket. */
  readonly isRepeated: boolean;
  /** True when nothing was left to be taken. */
  readonly isLast: boolean;
}

/**
 * The reading end of the outbox: a consumer group whose entries stay pending until they are in the bucket.
 *
 * A batch that was taken and not done, by whomever, is given out again first and whole: so a flush that is repeated has
 * the same entries.
 */
export interface OutboxReader {
  /** Takes the next batch. @param maxRows a batch ends with the page of entries that reaches it. */
  take(maxRows: number): Promise<OutboxBatch>;
  /** Forgets a batch that is in the bucket: in one step. */
  done(batch: Pick<OutboxBatch, 'ids'>): Promise<void>;
}

/** An entry of a version that is not known here yet: it must wait for a catalog process that knows it. */
export class NewerRowsError extends Error {
  override readonly name = 'NewerRowsError';
}

/** @param consumer any name; entries pending for others are taken over. */
export function createOutboxReader(redis: RedisClient, keys: RedisKeys, consumer: string): OutboxReader {
  const { outbox } = keys;

  async function ensureGroup(): Promise<void> {
    await redis.xgroup('CREATE', outbox, GROUP, '0', 'MKSTREAM').catch((error: unknown) => {
      if (!(error instanceof Error && error.message.startsWith('BUSYGROUP'))) throw error;
    });
  }

  /** Takes over everything that is pending, whoever has it: the caller holds the lease. */
  async function pending(): Promise<string[]> {
    const ids: string[] = [];
    let cursor = '0-0';
    do {
      const claim = redis.xautoclaim(outbox, GROUP, consumer, 0, cursor, 'COUNT', PAGE, 'JUSTID');
      const [next, some] = (await claim) as [string, string[]];
      cursor = next;
      ids.push(...some);
    } while (cursor !== '0-0');
    return ids;
  }

  async function fresh(maxRows: number): Promise<Pick<OutboxBatch, 'ids' | 'isLast'>> {
    const ids: string[] = [];
    let [rows, isLast] = [0, false];
    while (rows < maxRows) {
      const reply = (await redis.xreadgroup('GROUP', GROUP, consumer, 'COUNT', READ_PAGE, 'STREAMS', outbox, '>')) as
        | [string, RawEntry[]][]
        | null;
      const page = reply?.[0]?.[1] ?? [];
      isLast = page.length < READ_PAGE;
      ids.push(...page.map(([id]) => id));
      rows += page.reduce((sum, entry) => sum + (parseEntry(entry)?.rows.length ?? 1), 0);
      if (isLast) break;
    }
    return { ids, isLast };
  }

  /** True when something was given out of which `ids` know nothing: an answer of Redis was lost on its way. */
  async function isPartOfPending(ids: readonly string[]): Promise<boolean> {
    const [count] = (await redis.xpending(outbox, GROUP)) as [number, ...unknown[]];
    return count !== ids.length;
  }

  async function* read(ids: readonly string[], unreadable: string[]): AsyncIterable<OutboxEntry> {
    for (let start = 0; start < ids.length; start += READ_PAGE) {
      const page = new Set(ids.slice(start, start + READ_PAGE));
      const [first = '-', last = '+'] = [ids[start], ids[Math.min(start + READ_PAGE, ids.length) - 1]];
      for (const raw of await redis.xrange(outbox, first, last)) {
        if (!page.has(raw[0])) continue;
        const entry = parseEntry(raw);
        if (entry === undefined) unreadable.push(raw[0]);
        else yield entry;
      }
    }
  }

  return {
    take: async (maxRows) => {
      await ensureGroup();
      let ids: readonly string[] = await pending();
      let isRepeated = ids.length > 0;
      let isLast = false;
      if (!isRepeated) {
        ({ ids, isLast } = await fresh(maxRows));
        // What came before must be written before: all of it is one batch.
        isRepeated = await isPartOfPending(ids);
        if (isRepeated) ids = await pending();
      }
      const unreadable: string[] = [];
      return { ids, unreadable, isRepeated, isLast, entries: read(ids, unreadable) };
    },

    done: async ({ ids }) => {
      if (ids.length === 0) return;
      const steps = redis.multi();
      for (let start = 0; start < ids.length; start += PAGE) {
        const page = ids.slice(start, start + PAGE);
        steps.xack(outbox, GROUP, ...page).xdel(outbox, ...page);
      }
      for (const [error] of (await steps.exec()) ?? []) if (error !== null) throw error;
    },
  };
}

/** Looks at what waits in the outbox, and leaves it there. What nobody can read is left out. */
export async function* peekOutbox(redis: RedisClient, { outbox }: RedisKeys): AsyncIterable<OutboxEntry> {
  let from = '-';
  for (;;) {
    const page = (await redis.xrange(outbox, from, '+', 'COUNT', PAGE)) as RawEntry[];
    for (const raw of page) {
      const entry = parseEntry(raw);
      if (entry !== undefined) yield entry;
    }
    const last = page.at(-1);
    if (last === undefined || page.length < PAGE) return;
    from = `(${last[0]}`;
  }
}

type RawEntry = [id: string, fields: string[] | null];

/** Returns `undefined` for what nobody can read. @throws NewerRowsError */
function parseEntry([id, fields]: RawEntry): OutboxEntry | undefined {
  const [schema, packed, mayBeThere] = ['t', 'r', 's'].map((name) => fieldOf(fields ?? [], name));
  const [name = '', version] = (schema ?? '').split('/');
  const table = Object.values(TABLES).find((known) => known.name === name);
  if (table === undefined || packed === undefined) return undefined;
  if (Number(version) > table.version)
    throw new NewerRowsError(
      `the outbox holds ${schema}, which this version does not know: update the catalog process`,
    );
  try {
    const rows = (JSON.parse(packed) as unknown[]).map((row) => unpackRow(table, row));
    const readable = rows.filter((row) => row !== undefined);
    if (readable.length < rows.length) return undefined;
    return { id, table, rows: readable, mayBeThere: mayBeThere !== undefined };
  } catch {
    return undefined;
  }
}

function fieldOf(fields: readonly string[], name: string): string | undefined {
  for (let index = 0; index + 1 < fields.length; index += 2) if (fields[index] === name) return fields[index + 1];
  return undefined;
}
