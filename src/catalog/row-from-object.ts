import { archivedObject } from '../archive/recover-media.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import { unwrap } from './flush.ts';
import { type MediaRow, mediaRowOf } from './media-table.ts';

/**
 * Makes the row of a media from its object alone: the same as the one the worker that archived it has told. An object
 * that was stored in parts is read through for its hash.
 *
 * @returns `undefined` for an object that is gone, or is none of ours.
 * @throws FailureError
 */
export async function rowFromObject(
  store: Pick<ArchiveStore, 'head' | 'digest' | 'readJson'>,
  key: string,
  signal: AbortSignal,
): Promise<MediaRow | undefined> {
  const head = unwrap(await store.head(key, signal));
  if (head === undefined) return undefined;
  const object = unwrap(await archivedObject(store, head, signal));
  return object === undefined ? undefined : mediaRowOf(object);
}
