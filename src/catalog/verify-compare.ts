import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import type { BucketFiles, BucketObject } from '../store/bucket-files.ts';
import { tablePrefix } from './catalog-keys.ts';
import { readableFiles } from './compare-rows.ts';
import { appsOf, kindFoldersOf } from './days.ts';
import { type Duck, fromNdjson, fromParquet, sqlText } from './duck.ts';
import { onceEach, outOfMemory, pagesByKey, toParquet } from './large-queries.ts';
import { listKey } from './manifest.ts';
import type { ChainLink } from './manifest-chain.ts';
import { readManifest } from './manifest-list.ts';
import { downloadRows } from './manifest-rows.ts';
import { MEDIA_TABLE } from './media-table.ts';
import { keyOfLocalPath } from './parquet.ts';
import type { AnyRow } from './table.ts';
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

const LISTING_COLUMNS = [
  { name: 'key', type: 'VARCHAR' },
  { name: 'size_bytes', type: 'BIGINT' },
  { name: 'etag', type: 'VARCHAR' },
  { name: 'modified', type: 'BIGINT' },
] as const;

const SEALED_COLUMNS = [
  { name: 'key', type: 'VARCHAR' },
  { name: 'size_bytes', type: 'BIGINT' },
  { name: 'sha256', type: 'VARCHAR' },
  { name: 'sequence', type: 'BIGINT' },
] as const;

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

/**
 * Puts listing, rows and sealed lines of each key together. Step by step, each through a file: one join is as much as the
 * memory that DuckDB is given holds.
 */
async function joinAll(
  duck: Duck,
  { listing, rows, sealed }: { readonly listing: string; readonly rows: readonly string[]; readonly sealed: string },
  spoilt: readonly number[],
  target: string,
  signal: AbortSignal,
): Promise<void> {
  const [one, two, three] = [`${target}.1`, `${target}.2`, `${target}.3`];
  await toParquet(duck, `SELECT * FROM ${fromNdjson(listing, LISTING_COLUMNS)}`, one, signal);
  await toParquet(duck, `SELECT ${ROW_COLUMNS} FROM ${await oneRowEach(duck, rows, signal)}`, two, signal);
  await toParquet(
    duck,
    `SELECT coalesce(l.key, r.key) AS key, l.size_bytes AS listed_bytes, l.etag AS listed_etag, modified,
       r.size_bytes AS row_bytes, r.sha256 AS row_sha256, r.etag AS row_etag, app_id, media_id
     FROM ${parquet(one)} AS l FULL JOIN ${parquet(two)} AS r ON l.key = r.key`,
    three,
    signal,
  );
  await toParquet(duck, `SELECT * FROM ${await oneLineEach(duck, sealed, signal)}`, one, signal);
  const isIntact = spoilt.length === 0 ? 'true' : `m.sequence NOT IN (${spoilt.join(', ')})`;
  await toParquet(
    duck,
    `SELECT coalesce(c.key, m.key) AS key, c.* EXCLUDE (key),
       regexp_extract(coalesce(c.key, m.key), '/dt=([0-9]{4}-[0-9]{2}-[0-9]{2})/', 1) AS dt, m.size_bytes AS sealed_bytes, m.sha256 AS sealed_sha256,
       (${isIntact})::INTEGER AS is_intact
     FROM ${parquet(three)} AS c FULL JOIN ${parquet(one)} AS m ON c.key = m.key`,
    target,
    signal,
  );
  await Promise.all([one, two, three].map((path) => rm(path)));
}

const ROW_COLUMNS = 'key, size_bytes, sha256, etag, app_id, media_id';

function parquet(path: string): string {
  return `read_parquet(${sqlText(path)})`;
}

const NO_ROWS = `(SELECT NULL::VARCHAR AS key, NULL::BIGINT AS size_bytes, NULL::VARCHAR AS sha256, NULL::VARCHAR AS etag,
  NULL::VARCHAR AS app_id, NULL::VARCHAR AS media_id WHERE false)`;

/** Tells of the rows that are there twice: they would be counted twice. */
async function tellTwice(
  duck: Duck,
  rows: readonly string[],
  found: (difference: Difference) => void,
  signal: AbortSignal,
): Promise<void> {
  if (rows.length === 0) return;
  const source = fromParquet(rows);
  const twice = `SELECT hash(key) FROM ${source} GROUP BY ALL HAVING count(*) > 1`;
  const query = `SELECT key, count(*) AS n FROM ${source} WHERE hash(key) IN (${twice}) GROUP BY key HAVING count(*) > 1 ORDER BY key`;
  for await (const page of duck.stream(query, signal)) {
    for (const { key, n } of page)
      found({
        difference: 'catalog-altered',
        key: String(key),
        expected: 'one row',
        found: `${n} rows`,
        sealed: false,
      });
  }
}

/** Two rows of one key that do not agree make a row that agrees with nothing. */
function oneRowEach(duck: Duck, rows: readonly string[], signal: AbortSignal): Promise<string> | string {
  if (rows.length === 0) return NO_ROWS;
  const source = fromParquet(rows);
  const hash = "CASE WHEN min(sha256) = max(sha256) THEN min(sha256) ELSE min(sha256) || ' ' || max(sha256) END";
  const chosen = `SELECT key, max(size_bytes) AS size_bytes, ${hash} AS sha256, max(etag) AS etag, max(app_id) AS app_id,
    max(media_id) AS media_id FROM ${source} GROUP BY key`;
  return onceEach(duck, source, chosen, signal);
}

/** What was sealed first counts. */
function oneLineEach(duck: Duck, sealed: string, signal: AbortSignal): Promise<string> {
  const source = fromNdjson(sealed, SEALED_COLUMNS);
  const chosen = `SELECT key, arg_min(size_bytes, sequence) AS size_bytes, arg_min(sha256, sequence) AS sha256,
    min(sequence) AS sequence FROM ${source} GROUP BY key`;
  return onceEach(duck, source, chosen, signal);
}

function witnessesOf(row: AnyRow): Witnesses {
  const text = (name: string): string => String(row[name]);
  const number = (name: string): number => Number(row[name]);
  const has = (name: string): boolean => row[name] !== null && row[name] !== undefined;
  return {
    key: text('key'),
    ...(has('listed_bytes')
      ? {
          listed: {
            sizeBytes: number('listed_bytes'),
            lastModified: number('modified'),
            ...(has('listed_etag') ? { etag: text('listed_etag') } : {}),
          },
        }
      : {}),
    ...(has('row_sha256')
      ? {
          row: {
            sizeBytes: number('row_bytes'),
            sha256: text('row_sha256'),
            appId: text('app_id'),
            mediaId: text('media_id'),
            ...(has('row_etag') ? { etag: text('row_etag') } : {}),
          },
        }
      : {}),
    ...(has('sealed_sha256')
      ? {
          sealed: {
            sizeBytes: number('sealed_bytes'),
            sha256: text('sealed_sha256'),
            isIntact: number('is_intact') === 1,
          },
        }
      : {}),
  };
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
