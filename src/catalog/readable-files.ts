import { FailureError, failure } from '../failure.ts';
import type { BucketFiles, BucketObject } from '../store/bucket-files.ts';
import { type Partition, partitionOfKey, partitionPrefix } from './catalog-keys.ts';
import { hiddenBy, openReplacements, type Replacement } from './replace-files.ts';

const MAX_ROUNDS = 20;
/** Written by a flush, beside what is there. Everything else takes the place of something. */
const ADDED = /\/\d{15}-\d{6}_\d{15}-\d{6}\.parquet$/;

/**
 * Lists the files of the catalog that hold each row once, while others are writing it.
 *
 * Files that are being merged lie beside the merged one for a while, and a note says so. A listing and a note that were
 * not read at one time may miss each other, so each partition is listed before and after the notes are read, again until
 * nothing was replaced in between.
 *
 * @param prefix of a table, or of what is in it.
 * @param isWanted chooses partitions.
 * @throws FailureError `store-busy` when it is replaced without end.
 */
export async function readableFiles(
  files: BucketFiles,
  prefix: string,
  isWanted: (partition: Partition) => boolean,
  signal: AbortSignal,
): Promise<BucketObject[]> {
  const readable: BucketObject[] = [];
  let then = await byPartition(listed([prefix]));
  for (let round = 0; round < MAX_ROUNDS; round += 1) {
    const notes: Replacement[] = [];
    for await (const { replacement } of openReplacements(files, signal)) notes.push(replacement);
    const now = await byPartition(listed(round === 0 ? [prefix] : then.keys()));
    const isThere = (key: string): boolean => now.get(prefixOf(key))?.has(key) === true;
    const hidden = new Set(notes.flatMap((note) => hiddenBy(note, isThere)));
    const unsettled = new Map<string, Map<string, BucketObject>>();
    for (const each of new Set([...then.keys(), ...now.keys()])) {
      const [old, young] = [then, now].map((all) => [...(all.get(each)?.values() ?? [])].filter(isShown));
      if (isSettled(old ?? [], young ?? [])) readable.push(...(young ?? []));
      else unsettled.set(each, now.get(each) ?? new Map());
    }
    if (unsettled.size === 0) return readable;
    then = unsettled;

    function isShown({ key }: BucketObject): boolean {
      return !hidden.has(key);
    }
  }
  throw new FailureError(failure('store-busy', { detail: `the files below ${prefix} are replaced all the time` }));

  async function* listed(prefixes: Iterable<string>): AsyncIterable<BucketObject> {
    for (const each of prefixes) {
      for await (const object of files.list(each, signal)) {
        const partition = partitionOfKey(object.key);
        if (partition !== undefined && isWanted(partition)) yield object;
      }
    }
  }
}

/** True when the second listing shows all of the first, and beyond it only what a flush has added. */
function isSettled(before: readonly BucketObject[], after: readonly BucketObject[]): boolean {
  const [old, young] = [before, after].map((objects) => new Set(objects.map(({ key }) => key)));
  return (
    before.every(({ key }) => young?.has(key)) && after.every(({ key }) => old?.has(key) === true || ADDED.test(key))
  );
}

async function byPartition(objects: AsyncIterable<BucketObject>): Promise<Map<string, Map<string, BucketObject>>> {
  const found = new Map<string, Map<string, BucketObject>>();
  for await (const object of objects) {
    const prefix = prefixOf(object.key);
    const partition = found.get(prefix) ?? new Map<string, BucketObject>();
    found.set(prefix, partition.set(object.key, object));
  }
  return found;
}

function prefixOf(key: string): string {
  const partition = partitionOfKey(key);
  return partition === undefined ? '' : partitionPrefix(partition);
}
