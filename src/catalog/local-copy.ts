import { createHash } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { FailureError, failure } from '../failure.ts';
import type { BucketFiles, BucketObject } from '../store/bucket-files.ts';
import { DAY } from '../time.ts';
import { CATALOG_PREFIX, dayPrefix, partitionOfKey, tablePrefix } from './catalog-keys.ts';
import { daysOf } from './days.ts';
import { unwrap } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import { filesByTable, keysBelow, pathOf } from './local-files.ts';
import type { TableFiles } from './query.ts';
import { readableFiles } from './readable-files.ts';
import { hasDay, isWanted, type Scope } from './scope.ts';
import type { TableName } from './table.ts';

/** Files on their way at once. */
const DOWNLOADS_AT_ONCE = 8;
const MAX_ROUNDS = 5;
/** Where files lie until they are whole, one folder a run. */
const INCOMING = '.incoming-';

export interface LocalCopy {
  readonly files: TableFiles;
  readonly downloaded: { readonly files: number; readonly bytes: number };
  /** Files of an earlier copy that the bucket has no more. */
  readonly removed: number;
}

/**
 * Brings files of the catalog to a folder that is kept: what is there already is left as it is, and what the bucket has
 * no more is removed, within the scope. The bucket is only read.
 *
 * A file lies below `catalog/` as in the bucket, and its name has the ETag in it: it is never half, and never an old one
 * under a new one's name. Broken off at any point, the next run goes on from there. Two runs on one folder may take each
 * other's files away; they do no other harm.
 *
 * @param progress told what is to be downloaded in all, and after each file.
 * @throws FailureError what the bucket answers, or the disk; `store-busy` when files are replaced without end.
 */
export async function copyCatalog(
  bucket: BucketFiles,
  scope: Scope,
  folder: string,
  signal: AbortSignal,
  progress: (done: number, total: number) => void = () => undefined,
): Promise<LocalCopy> {
  const root = join(folder, CATALOG_PREFIX);
  await mkdir(root, { recursive: true });
  await removeLeftovers(folder);
  const incoming = await mkdtemp(join(folder, INCOMING));
  const downloaded = { files: 0, bytes: 0 };
  try {
    for (let round = 0; round < MAX_ROUNDS; round += 1) {
      const objects: BucketObject[] = [];
      for (const table of scope.tables) {
        for await (const prefix of prefixesOf(table))
          objects.push(...(await readableFiles(bucket, prefix, (one) => isWanted(scope, one), signal)));
      }
      if (!(await download(objects))) continue;
      const kept = objects.map(localKey);
      const removed = await removeOthers(new Set(kept));
      return { files: filesByTable(root, kept, scope), downloaded, removed };
    }
  } finally {
    await rm(incoming, { recursive: true, force: true });
  }
  throw new FailureError(failure('store-busy', { detail: 'files of the catalog are replaced all the time' }));

  /** Of a few days only those are listed. */
  async function* prefixesOf(table: TableName): AsyncIterable<string> {
    const { since, until } = scope;
    if (since === undefined && until === undefined) yield tablePrefix(table);
    else for await (const dt of daysOf(bucket, table, signal)) if (hasDay(scope, dt)) yield dayPrefix(table, dt);
  }

  /** False when one of them is gone by now: what has taken its place is to be looked for. */
  async function download(objects: readonly BucketObject[]): Promise<boolean> {
    const missing: BucketObject[] = [];
    for (const object of objects) if (!(await isThere(object))) missing.push(object);
    let [count, isWhole] = [0, true];
    progress(0, missing.length);
    await inParallel(DOWNLOADS_AT_ONCE, missing.entries(), async ([index, object]) => {
      signal.throwIfAborted();
      const [part, path] = [join(incoming, String(index)), pathOf(root, localKey(object))];
      if (unwrap(await bucket.getFile(object.key, part, signal))) {
        await mkdir(dirname(path), { recursive: true });
        const { size } = await stat(part);
        await rename(part, path);
        downloaded.files += 1;
        downloaded.bytes += size;
      } else isWhole = false;
      count += 1;
      progress(count, missing.length);
    });
    return isWhole;
  }

  async function isThere(object: BucketObject): Promise<boolean> {
    const facts = await stat(pathOf(root, localKey(object))).catch(() => undefined);
    return facts?.size === object.sizeBytes;
  }

  async function removeOthers(kept: ReadonlySet<string>): Promise<number> {
    let count = 0;
    for (const table of scope.tables) {
      for (const key of await keysBelow(root, tablePrefix(table))) {
        if (kept.has(key) || !isWanted(scope, partitionOfKey(key))) continue;
        await rm(pathOf(root, key), { force: true });
        count += 1;
      }
    }
    return count;
  }
}

/** The key that a file has in a copy: with what tells its content from an earlier one. */
function localKey({ key, sizeBytes, etag, lastModified }: BucketObject): string {
  const version = etag ?? `${sizeBytes}-${lastModified ?? ''}`;
  const text = /^[A-Za-z0-9-]{1,80}$/.test(version) ? version : createHash('sha256').update(version).digest('hex');
  return key.replace(/\.parquet$/, `.${text}.parquet`);
}

/** What a run has left that was killed. One that goes on at this moment keeps its own. */
async function removeLeftovers(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (!name.startsWith(INCOMING)) continue;
    const path = join(folder, name);
    const facts = await stat(path).catch(() => undefined);
    if (facts !== undefined && facts.mtimeMs < Date.now() - DAY) await rm(path, { recursive: true, force: true });
  }
}
