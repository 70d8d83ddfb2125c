import { z } from 'zod';
import type { BucketFiles } from '../store/bucket-files.ts';
import { CATALOG_STATE_KEY } from './catalog-keys.ts';
import { unwrap } from './unwrap.ts';

/** What the catalog process remembers, in the bucket: it must outlive Redis. */
const stateSchema = z.object({
  v: z.literal(1),
  /** Up to this id of the outbox, as text that sorts, some flush has begun. What comes with a lower one may be there. */
  flushedId: z.string().default(''),
  /**
   * Until then rows were made from objects, as a Unix time in milliseconds. What the outbox brings of media that were
   * archived before, however late, may be there.
   */
  rebuiltAt: z.number().default(0),
  /** The next day to close; absent before the first was looked for. */
  closeNext: z.string().optional(),
  /** Days that were closed and have got rows since. */
  changedDays: z.array(z.string()).default([]),
});

export type CatalogState = z.output<typeof stateSchema>;

const MAX_STATE_BYTES = 1024 * 1024;

/** @throws FailureError */
export async function readState(files: BucketFiles, signal: AbortSignal): Promise<CatalogState> {
  const bytes = unwrap(await files.getBytes(CATALOG_STATE_KEY, MAX_STATE_BYTES, signal));
  if (bytes === undefined) return stateSchema.parse({ v: 1 });
  // What somebody has spoilt is begun anew: it only saves work.
  return stateSchema.safeParse(jsonOf(bytes)).data ?? stateSchema.parse({ v: 1 });
}

/** @throws FailureError */
export async function writeState(files: BucketFiles, state: CatalogState, signal: AbortSignal): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(state)}\n`);
  unwrap(await files.putBytes(CATALOG_STATE_KEY, bytes, 'application/json', signal));
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}
