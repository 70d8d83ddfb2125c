import type { BucketFiles } from '../store/bucket-files.ts';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';
import type { VersionSweep } from '../store/version-sweep.ts';
import { NO_APP } from './erase-search.ts';
import type { Wanted } from './erase-wanted.ts';
import { inParallel } from './in-parallel.ts';

/** Keys worked on at once. */
const AT_ONCE = 16;

/** How many keys of each kind there were. */
export interface ErasedObjects {
  media: number;
  derived: number;
  annotations: number;
  deadLetters: number;
  /** Uploads that were never ended. */
  uploads: number;
  /** Versions and delete markers in all. */
  versions: number;
}

export interface EraseObjectsParts {
  readonly files: BucketFiles;
  readonly sweep: VersionSweep;
  /** Told of each key: it is gone, or would go, or could not be removed. */
  readonly onKey: (key: string, failed?: unknown) => void;
}

/**
 * Removes the objects of media with all their versions and delete markers: the media, what was made of them, what was
 * said of them, their dead letters. Harmless to repeat. What can't be removed is told, and the others are.
 *
 * Looks at every key of the app: nothing else is certain. @param dryRun counts only. @throws FailureError
 */
export async function eraseObjects(
  { files, sweep, onKey }: EraseObjectsParts,
  wanted: Wanted,
  dryRun: boolean,
  signal: AbortSignal,
): Promise<ErasedObjects> {
  const app = `app=${wanted.appId}/`;
  const counts: ErasedObjects = { media: 0, derived: 0, annotations: 0, deadLetters: 0, uploads: 0, versions: 0 };
  const folders: readonly [keyof ErasedObjects, string][] = [
    ['derived', 'derived/'],
    ['media', `media/${app}`],
    ['annotations', `annotations/${app}`],
    ['deadLetters', `${DEAD_LETTER_PREFIX}${app}`],
    ['deadLetters', `${DEAD_LETTER_PREFIX}app=${NO_APP}/`],
  ];
  if (wanted.mediaIds.size === 0 && wanted.letterKeys.size === 0) return counts;
  for (const prefix of [`media/${app}`, `derived/${app}`])
    counts.uploads += await sweep.abortUploads(prefix, wanted.isKey, dryRun, signal);
  for (const [kind, prefix] of folders) {
    await inParallel(AT_ONCE, wantedKeys(files, prefix, wanted, signal), async ({ key, versions }) => {
      const removed = dryRun ? undefined : await files.removeVersions(key, signal);
      if (removed?.ok === false) return onKey(key, removed.failure);
      counts[kind] += 1;
      counts.versions += removed === undefined ? versions : removed.value;
      onKey(key);
    });
  }
  return counts;
}

/** Each key once: a listing has the versions of a key one after the other, but for the delete markers of a page. */
async function* wantedKeys(
  files: BucketFiles,
  prefix: string,
  wanted: Wanted,
  signal: AbortSignal,
): AsyncIterable<{ readonly key: string; readonly versions: number }> {
  const seen = new Map<string, number>();
  for await (const { key } of files.versions(prefix, signal)) {
    if (wanted.isKey(key)) seen.set(key, (seen.get(key) ?? 0) + 1);
  }
  for (const [key, versions] of seen) yield { key, versions };
}
