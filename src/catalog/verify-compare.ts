import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import type { BucketFiles, BucketObject } from '../store/bucket-files.ts';
import { tablePrefix } from './catalog-keys.ts';
import { readableFiles } from './compare-rows.ts';
import { appsOf, kindFoldersOf } from './days.ts';
import { type Duck, sqlText } from './duck.ts';
import { outOfMemory, pagesByKey, toParquet } from './large-queries.ts';
import { listKey } from './manifest.ts';
import type { ChainLink } from './manifest-chain.ts';
import { readManifest } from './manifest-list.ts';
import { downloadRows } from './manifest-rows.ts';
import { MEDIA_TABLE } from './media-table.ts';
import { keyOfLocalPath } from './parquet.ts';
import { joinAll, tellTwice, witnessesOf } from './verify-join.ts';
import type { DayState, Difference, Witnesses } from './verify-judge.ts';

/** What of the archive is looked at. */
export interface VerifyScope {
  /** How many objects are read, drawn anew each time; absent: all. */
  readonly sample?: number;
  /** Days, `YYYY-MM-DD`, both included. */
  readonly since?: string;
  readonly until?: string;
  readonly app?: string;
}

export interface CompareParts {
  readonly files: BucketFiles;
  readonly duck: Duck;
  /** For the work of this comparison, on this machine's disk. */
  readonly folder: string;
}

/** What a comparison has looked at. */
export interface Compared {
  readonly listed: number;
  readonly rows: number;
  readonly sealed: number;
  readonly lists: number;
  /** Lines that an erasure has taken out. */
  readonly erased: number;
  /** Objects to be read. */
  readonly planned: number;
}

/**
 * Lays side by side what the bucket lists, what the catalog says and what was sealed, on this machine's disk.
 *
 * Rows are read before the bucket is listed: an object is there before its row is, so none seems to be missing that has
 * just come.
 */
export function createComparison({ files, duck, folder }: CompareParts, scope: VerifyScope, days: DayState) {
  const joined = join(folder, 'joined.parquet');
  const plan = join(folder, 'plan.parquet');

  /**
   * Gathers it all. @param seed decides which objects are drawn. @param found is told of lists that are not as they were
   * sealed. @throws FailureError
   */
  async function gather(
    links: readonly ChainLink[],
    seed: string,
    found: (difference: Difference) => void,
    signal: AbortSignal,
  ): Promise<Compared> {
    const sealed = join(folder, 'sealed.ndjson');
    const listing = join(folder, 'listing.ndjson');
    const lists = await gatherSealed(links, sealed, found, signal);
    const isWanted = ({ dt, app }: { dt: string; app?: string }): boolean =>
      isInDays(dt) && (scope.app === undefined || app === scope.app);
    const paths = await downloadRows(files, tablePrefix('media'), folder, isWanted, signal);
    const listed = await writeLines(listing, objects(signal), ({ key, sizeBytes, etag, lastModified }) => ({
      key,
      size_bytes: sizeBytes,
      etag: etag ?? null,
      modified: lastModified ?? 0,
    }));
    const rows = await readableFiles(duck, MEDIA_TABLE, paths, signal);
    const isReadable = new Set(rows);
    for (const path of paths) {
      if (isReadable.has(path)) continue;
      const key = keyOfLocalPath(folder, path);
      found({
        difference: 'catalog-altered',
        key,
        expected: 'a file of rows',
        found: 'something else',
        sealed: false,
      });
    }
    const sources = { listing, rows, sealed };
    await outOfMemory(duck, signal, async () => {
      await tellTwice(duck, rows, found, signal);
      await joinAll(duck, sources, lists.spoilt, joined, signal);
    });
    await Promise.all([listing, sealed, ...paths].map((path) => rm(path, { force: true })));
    await toParquet(duck, planQuery(seed), plan, signal);
    const [counts] = await duck.rows(
      `SELECT count(row_sha256) AS n, count(sealed_sha256) AS sealed FROM read_parquet(${sqlText(joined)})`,
      signal,
    );
    return {
      listed,
      rows: Number(counts?.['n']),
      sealed: Number(counts?.['sealed']),
      lists: lists.lists,
      erased: lists.erased,
      planned: await left('', signal),
    };
  }

  /** Those that lack a witness. */
  async function* incomplete(signal: AbortSignal): AsyncIterable<Witnesses> {
    const query = `SELECT * FROM read_parquet(${sqlText(joined)})
      WHERE listed_bytes IS NULL OR row_sha256 IS NULL OR (sealed_sha256 IS NULL AND dt < ${sqlText(days.closeNext)})`;
    for await (const page of duck.stream(query, signal)) yield* page.map(witnessesOf);
  }

  /** How many are to be read behind a key. */
  async function left(after: string, signal: AbortSignal): Promise<number> {
    const [answer] = await duck.rows(
      `SELECT count(*) AS n FROM read_parquet(${sqlText(plan)}) WHERE key > ${sqlText(after)}`,
      signal,
    );
    return Number(answer?.['n']);
  }

  /** Those to be read behind a key, in key order, a page at a time. */
  async function* planned(after: string, signal: AbortSignal): AsyncIterable<Witnesses> {
    for await (const page of pagesByKey(duck, plan, after, signal)) yield* page.map(witnessesOf);
  }

  /** Those of some keys that are to be read. */
  async function some(keys: readonly string[], signal: AbortSignal): Promise<Witnesses[]> {
    if (keys.length === 0) return [];
    const query = `SELECT * FROM read_parquet(${sqlText(joined)}) WHERE listed_bytes IS NOT NULL AND key IN (${keys.map(sqlText).join(', ')}) ORDER BY key`;
    return (await duck.rows(query, signal)).map(witnessesOf);
  }

  return { gather, incomplete, left, planned, some, planPath: plan };

  /** Everything is read that looks wrong; of the rest what was asked for. */
  function planQuery(seed: string): string {
    const { sample } = scope;
    const source = `read_parquet(${sqlText(joined)})`;
    const isReadable = '(listed_bytes IS NOT NULL AND (row_sha256 IS NOT NULL OR sealed_sha256 IS NOT NULL))';
    const isOdd = `coalesce(listed_etag <> row_etag, false) OR coalesce(listed_bytes <> row_bytes, false)
      OR coalesce(listed_bytes <> sealed_bytes, false) OR coalesce(row_bytes <> sealed_bytes, false)
      OR coalesce(row_sha256 <> sealed_sha256, false)`;
    const drawn =
      sample === undefined
        ? 'true'
        : `key IN (SELECT key FROM ${source} WHERE ${isReadable} ORDER BY md5(key || ${sqlText(seed)}) LIMIT ${sample})`;
    return `SELECT * FROM ${source} WHERE ${isReadable} AND (${isOdd} OR ${drawn})`;
  }

  async function gatherSealed(
    links: readonly ChainLink[],
    path: string,
    found: (difference: Difference) => void,
    signal: AbortSignal,
  ): Promise<{ readonly lists: number; readonly erased: number; readonly spoilt: readonly number[] }> {
    const stream = createWriteStream(path);
    const spoilt: number[] = [];
    let [lists, erased] = [0, 0];
    for (const { dt, sequence, head } of links) {
      if (!isInDays(dt)) continue;
      const list = head ?? { list: { key: listKey({ dt, sequence }), sha256: '' }, objects: 0, bytes: 0 };
      const check = await readManifest(
        files,
        folder,
        list,
        async ({ key, size, sha256 }) => {
          if (scope.app !== undefined && !key.startsWith(`media/app=${scope.app}/`)) return;
          if (!stream.write(`${JSON.stringify({ key, size_bytes: size, sha256, sequence })}\n`))
            await once(stream, 'drain');
        },
        signal,
      );
      lists += 1;
      erased += check.erased;
      if (check.isIntact) continue;
      spoilt.push(sequence);
      // What is no head was told as a break of the chain.
      if (head === undefined) continue;
      const expected = head.list.sha256;
      const isOther = check.sha256 !== expected;
      const [said, told] = isOther ? [expected, check.sha256 ?? null] : [counted(head), counted(check)];
      found({ difference: 'manifest-altered', key: head.list.key, expected: said, found: told, sealed: false });
    }
    stream.end();
    await finished(stream);
    return { lists, erased, spoilt };
  }

  async function* objects(signal: AbortSignal): AsyncIterable<BucketObject> {
    const { app, since = '', until } = scope;
    if (since === '' && until === undefined) {
      yield* files.list(app === undefined ? 'media/' : `media/app=${app}/`, signal);
      return;
    }
    for await (const known of app === undefined ? appsOf(files, signal) : [app]) {
      for await (const kind of kindFoldersOf(files, known, signal)) {
        for await (const object of files.list(kind, signal, { after: `${kind}dt=${since}` })) {
          const dt = object.key.slice(kind.length).match(/^dt=(\d{4}-\d{2}-\d{2})\//)?.[1];
          if (dt === undefined) continue;
          if (until !== undefined && dt > until) break;
          yield object;
        }
      }
    }
  }

  function isInDays(dt: string): boolean {
    const { since, until } = scope;
    return (since === undefined || dt >= since) && (until === undefined || dt <= until);
  }
}

export type Comparison = ReturnType<typeof createComparison>;

function counted({ objects, bytes }: { readonly objects: number; readonly bytes: number }): string {
  return `${objects} objects, ${bytes} bytes`;
}

async function writeLines<T>(path: string, items: AsyncIterable<T>, lineOf: (item: T) => object): Promise<number> {
  const stream = createWriteStream(path);
  let count = 0;
  for await (const item of items) {
    count += 1;
    if (!stream.write(`${JSON.stringify(lineOf(item))}\n`)) await once(stream, 'drain');
  }
  stream.end();
  await finished(stream);
  return count;
}
