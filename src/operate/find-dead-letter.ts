import type { ArchiveStore } from '../store/archive-store.ts';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';
import type { MediaName } from './media-name.ts';

/**
 * Looks through the bucket for the letters of an app's media: those that are no longer open are not listed elsewhere.
 * Returns the newest key of each. @throws FailureError
 */
export async function findDeadLetterKeys(
  store: ArchiveStore,
  names: readonly MediaName[],
  signal: AbortSignal,
): Promise<string[]> {
  const files = names.map(({ mediaId, variant }) => (variant === undefined ? mediaId : `${mediaId}.${variant}`));
  const newest = new Map<string, string>();
  for (const appId of new Set(names.map((name) => name.appId))) {
    for await (const { key } of store.list(`${DEAD_LETTER_PREFIX}app=${appId}/`, signal)) {
      const file = files.find((wanted) => key.endsWith(`/${wanted}.json`));
      if (file !== undefined) newest.set(file, key);
    }
  }
  return [...newest.values()];
}
