import { deadLetterSchema } from '../dead-letter/dead-letter.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { type DeadLetterRow, deadLetterRowOf } from './dead-letter-table.ts';
import { unwrap } from './unwrap.ts';

/** Ours are far smaller: 5,000 attempts. */
const MAX_LETTER_BYTES = 16 * 1024 * 1024;

/**
 * Makes the row of a dead letter from its document in the bucket. `undefined` where there is none, or one that is none of
 * ours.
 *
 * @throws FailureError
 */
export async function letterRow(
  files: Pick<BucketFiles, 'getBytes'>,
  key: string,
  signal: AbortSignal,
): Promise<DeadLetterRow | undefined> {
  const bytes = await files.getBytes(key, MAX_LETTER_BYTES, signal);
  if (!bytes.ok && bytes.failure.code === 'object-conflict') return undefined;
  const text = unwrap(bytes);
  if (text === undefined) return undefined;
  const letter = deadLetterSchema.safeParse(jsonOf(text)).data;
  return letter === undefined ? undefined : deadLetterRowOf(key, letter);
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}
