import { randomBytes } from 'node:crypto';
import type { BucketFiles } from '../store/bucket-files.ts';
import { COMPACTIONS_PREFIX, type Partition, partitionPrefix, replacementKey } from './catalog-keys.ts';
import { PARQUET_TYPE, unwrap } from './flush.ts';
import { inParallel } from './in-parallel.ts';

/** Which files of a partition are being replaced by which. One document a partition, while it goes on. */
export interface Replacement {
  readonly v: 1;
  readonly sources: readonly string[];
  readonly targets: readonly string[];
}

/** Files removed at once. */
const REMOVALS_AT_ONCE = 16;
const MAX_REPLACEMENT_BYTES = 16 * 1024 * 1024;

/**
 * Replaces files of a partition by others: notes what it is about to do, writes the new ones, removes the old ones,
 * removes the note.
 *
 * A store has no step that does it all. Until the old ones are gone a reader who lists the partition sees both; one who
 * reads the note knows better (`hiddenBy`). A crash in between is made good by `finishReplacements`.
 *
 * @param paths the new files, on this machine's disk; none removes the old ones.
 * @throws FailureError
 */
export async function replaceFiles(
  files: BucketFiles,
  partition: Partition,
  sources: readonly string[],
  paths: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const id = randomBytes(6).toString('hex');
  const targets = paths.map((_, index) => `${partitionPrefix(partition)}merged-${id}-${index}.parquet`);
  const replacement: Replacement = { v: 1, sources, targets };
  const note = replacementKey(partition);
  const bytes = Buffer.from(`${JSON.stringify(replacement)}\n`);
  unwrap(await files.putBytes(note, bytes, 'application/json', signal));
  for (const [index, path] of paths.entries())
    unwrap(await files.putFile(targets[index] ?? '', path, PARQUET_TYPE, signal));
  await removeAll(files, sources, signal);
  unwrap(await files.remove(note, signal));
}

/**
 * Ends replacements that were broken off: forward where all new files are there, else back. Returns how many there were.
 *
 * @throws FailureError
 */
export async function finishReplacements(files: BucketFiles, signal: AbortSignal): Promise<number> {
  let count = 0;
  for await (const { note, replacement } of openReplacements(files, signal)) {
    const { sources, targets } = replacement;
    const heads = await Promise.all(targets.map((key) => files.head(key, signal)));
    const isWritten = heads.every((head) => unwrap(head) !== undefined);
    await removeAll(files, isWritten ? sources : targets, signal);
    unwrap(await files.remove(note, signal));
    count += 1;
  }
  return count;
}

/** @throws FailureError */
export async function* openReplacements(
  files: BucketFiles,
  signal: AbortSignal,
): AsyncIterable<{ readonly note: string; readonly replacement: Replacement }> {
  for await (const { key } of files.list(COMPACTIONS_PREFIX, signal)) {
    const bytes = unwrap(await files.getBytes(key, MAX_REPLACEMENT_BYTES, signal));
    if (bytes !== undefined) yield { note: key, replacement: JSON.parse(Buffer.from(bytes).toString()) as Replacement };
  }
}

/**
 * The keys to leave out of a listing while a replacement goes on: the new files, or the old ones once their removal has
 * begun.
 *
 * @param isThere tells whether a key was listed.
 */
export function hiddenBy({ sources, targets }: Replacement, isThere: (key: string) => boolean): readonly string[] {
  return sources.every(isThere) ? targets : sources;
}

async function removeAll(files: BucketFiles, keys: readonly string[], signal: AbortSignal): Promise<void> {
  await inParallel(REMOVALS_AT_ONCE, keys, async (key) => void unwrap(await files.remove(key, signal)));
}
