import { type Failure, fail, type Result, succeed } from '../failure.ts';
import type { ArchiveStore, Digest, StoredObject, WriteReceipt } from './archive-store.ts';

/** How often an object that came back as other bytes is written anew within a call. */
const REWRITES = 3;

/**
 * A store whose every object is read back and compared, for stores that take whatever arrives.
 *
 * Costs a second transfer of each object. What came back as other bytes is removed, so that nothing wrong stays.
 *
 * @param isNeeded asked at each write: whether the store checks its bytes may be found out later.
 */
export function readBackStore(store: ArchiveStore, isNeeded: () => boolean): ArchiveStore {
  /** Returns `undefined` when what lies at the key is right; otherwise it has been removed, if that may be done. */
  async function mistakeAt(key: string, expected: Digest, signal: AbortSignal): Promise<Failure | undefined> {
    const stored = await store.digest(key, signal);
    if (!stored.ok) return stored.failure;
    if (stored.value?.sha256 === expected.sha256) return undefined;
    const removed = await store.remove(key, signal);
    const left = removed.ok ? 'and was removed' : 'and could not be removed';
    return { code: 'store-corrupted', detail: `${key} came back as other bytes ${left}` };
  }

  async function proven(
    key: string,
    written: Result<WriteReceipt>,
    signal: AbortSignal,
  ): Promise<Result<WriteReceipt>> {
    if (!written.ok) return written;
    const mistake = await mistakeAt(key, written.value.digest, signal);
    return mistake === undefined ? written : { ok: false, failure: mistake };
  }

  return {
    ...store,

    write: async (object, signal) => {
      let written = await store.write(object, signal);
      if (!isNeeded()) return written;
      written = await proven(object.key, written, signal);
      for (let left = REWRITES; left > 0 && !written.ok && written.failure.code === 'store-corrupted'; left -= 1) {
        written = await proven(object.key, await store.write(object, signal), signal);
      }
      return written;
    },

    writeStream: async (object, signal) => {
      const written = await store.writeStream(object, signal);
      return isNeeded() ? proven(object.key, written, signal) : written;
    },

    find: async (stem, signal): Promise<Result<StoredObject | undefined>> => {
      const found = await store.find(stem, signal);
      const sha256 = found.ok ? found.value?.metadata['sha256'] : undefined;
      if (!isNeeded() || !found.ok || found.value === undefined || sha256 === undefined) return found;
      const { key, sizeBytes } = found.value;
      const mistake = await mistakeAt(key, { sizeBytes, sha256 }, signal);
      if (mistake === undefined) return found;
      return mistake.code === 'store-corrupted' ? succeed(undefined) : fail(mistake.code, mistake);
    },
  };
}
