import { createReadStream } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { createInterface } from 'node:readline';
import { deadLetterSchema } from '../dead-letter/dead-letter.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { type DeadLetterRow, deadLetterRowOf } from './dead-letter-table.ts';
import { inParallel } from './in-parallel.ts';
import { SUSPECT_NAME } from './parquet.ts';
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

/** Letters read at once. */
const READS_AT_ONCE = 4;

/**
 * Writes the last of the states of each letter, of lines that were told, to a file. Returns how many letters there are.
 * What is told again may have been told otherwise since: of such letters the document is read.
 *
 * @throws FailureError
 */
export async function latestLetters(
  files: Pick<BucketFiles, 'getBytes'>,
  told: string,
  path: string,
  signal: AbortSignal,
): Promise<number> {
  const latest = new Map<string, string>();
  for await (const line of createInterface({ input: createReadStream(told) }))
    latest.set(String((JSON.parse(line) as DeadLetterRow).key), line);
  await inParallel(READS_AT_ONCE, latest, async ([key, line]) => {
    if (!(JSON.parse(line) as Record<string, unknown>)[SUSPECT_NAME]) return;
    const row = await letterRow(files, key, signal);
    if (row !== undefined) latest.set(key, JSON.stringify(row));
  });
  await writeFile(path, [...latest.values(), ''].join('\n'));
  return latest.size;
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}
