import { type Failure, fail, type Result, succeed } from '../failure.ts';
import {
  type ArchiveStore,
  type Digest,
  foundReceipt,
  type StoredObject,
  type StreamedObject,
  type WriteReceipt,
} from './archive-store.ts';

/** How often an object that came back as other bytes is written anew within a call. */
const REWRITES = 3;
/** How often an object that is in the way is read before it is removed. */
const READINGS = 2;

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
    return removedFrom(key, signal);
  }

  async function removedFrom(key: string, signal: AbortSignal): Promise<Failure> {
    const removed = await store.remove(key, signal);
    const left = removed.ok ? 'and was removed' : 'and could not be removed';
    return { code: 'store-corrupted', detail: `${key} came back as other bytes ${left}` };
  }

  /**
   * What a worker stored in parts and died before it had looked at it must not stand in the way of what is right. It is
   * removed only if it is other bytes each time it is read: reading may be what went wrong.
   */
  async function settledConflict(
    { key, digest }: StreamedObject,
    conflict: Failure,
    signal: AbortSignal,
  ): Promise<Result<WriteReceipt>> {
    const there = await store.head(key, signal);
    if (!there.ok) return there;
    if (there.value === undefined) return gone(key);
    if (there.value.metadata['sha256'] !== undefined) return { ok: false, failure: conflict };
    const ours = digest();
    const readings = new Set<string>();
    for (let reading = 0; reading < READINGS; reading += 1) {
      const stored = await store.digest(key, signal);
      if (!stored.ok) return stored;
      if (stored.value === undefined) return gone(key);
      if (stored.value.sha256 === ours.sha256) return succeed(foundReceipt(ours, there.value));
      readings.add(stored.value.sha256);
    }
    if (readings.size > 1) return fail('store-busy', { detail: `${key} comes back as other bytes each time` });
    return { ok: false, failure: await removedFrom(key, signal) };
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

    write: async (given, signal) => {
      // It may be written again, and then a later write decides who has it in hand; so its memory is not used again here.
      const { onReleased: _, ...kept } = given;
      const object = isNeeded() ? kept : given;
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
      if (!isNeeded()) return written;
      if (written.ok || written.failure.code !== 'object-conflict') return proven(object.key, written, signal);
      return settledConflict(object, written.failure, signal);
    },

    find: async (stem, signal): Promise<Result<StoredObject | undefined>> => {
      const found = await store.find(stem, signal);
      if (!isNeeded() || !found.ok || found.value === undefined) return found;
      const { key, sizeBytes, metadata } = found.value;
      const sha256 = metadata['sha256'];
      // Stored in parts, and nobody is left who knows what they were: it must be fetched again to be told.
      if (sha256 === undefined) return succeed(undefined);
      const mistake = await mistakeAt(key, { sizeBytes, sha256 }, signal);
      if (mistake === undefined) return found;
      return mistake.code === 'store-corrupted' ? succeed(undefined) : fail(mistake.code, mistake);
    },
  };
}

function gone(key: string): Result<never> {
  return fail('store-busy', { detail: `${key} was there and is gone` });
}
