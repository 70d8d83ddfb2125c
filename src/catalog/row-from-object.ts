import { archivedObject } from '../archive/recover-media.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import { dayOf, keyOfPlace } from '../store/object-keys.ts';
import { type MediaRow, mediaRowOf } from './media-table.ts';
import { unwrap } from './unwrap.ts';

/**
 * Makes the row of a media from its object alone: the same as the one the worker that archived it has told. An object
 * that was stored in parts is read through for its hash.
 *
 * @returns `undefined` for an object that is gone, or is none of ours: also for a copy of one of ours at another key.
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
  const row = object === undefined ? undefined : mediaRowOf(object);
  return row === undefined || row.key !== keyOf(row) ? undefined : row;
}

/** Where a media lies that says this of itself. */
function keyOf({ app_id, media_id, variant, kind, received_at, extension }: MediaRow): string {
  const name = variant === null ? media_id : `${media_id}.${variant}`;
  return keyOfPlace(app_id, name, { kind, day: dayOf(received_at), extension });
}
