import type { ArchiveStore } from '../store/archive-store.ts';
import type { FlushParts } from './flush.ts';
import { rebuildPartition } from './rebuild.ts';
import { appsOfLetters } from './rebuild-partitions.ts';

/**
 * Compares the dead letters of a day with their rows, app by app, and writes those that differ anew from the letters.
 * Returns how many differed. Harmless to repeat. Memory does not grow with the number of letters.
 *
 * The caller holds the lease of the catalog.
 *
 * @throws FailureError
 */
export async function reconcileLetters(
  parts: FlushParts & { readonly store: Pick<ArchiveStore, 'head' | 'digest' | 'readJson'> },
  dt: string,
  signal: AbortSignal,
): Promise<number> {
  let changed = 0;
  const held = <T>(work: (within: AbortSignal) => Promise<T>): Promise<T> => work(signal);
  for (const app of await appsOfLetters(parts.files, dt, signal)) {
    const partition = { table: 'dead-letters', dt, app } as const;
    const { added, removed } = await rebuildPartition({ ...parts, held }, partition, false, signal);
    changed += Math.max(added, removed);
  }
  return changed;
}
