import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { finished, pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { FailureError, failure } from '../failure.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import type { BucketObject } from '../store/bucket-files.ts';
import { iso } from '../time.ts';
import { dayPrefix } from './catalog-keys.ts';
import { appsOf } from './days.ts';
import { fromNdjson, fromParquet, sqlText } from './duck.ts';
import { type FlushParts, unwrap } from './flush.ts';
import { onceEach, outOfMemory, pagesByKey, toParquet } from './large-queries.ts';
import {
  HEAD_TYPE,
  headKey,
  headText,
  LIST_TYPE,
  ListDigest,
  lineText,
  listKey,
  type ManifestHead,
  type ManifestPlace,
  sha256Hex,
  WRITER,
} from './manifest.ts';
import { listHeads, readLink } from './manifest-chain.ts';
import { readManifest } from './manifest-list.ts';
import { downloadRows } from './manifest-rows.ts';
import { LISTING_COLUMNS, objectsOf, writeListing } from './reconcile.ts';

export interface SealParts extends FlushParts {
  /** Writes heads: never over another one, where the store can. */
  readonly store: Pick<ArchiveStore, 'write'>;
  readonly now: () => number;
}

/**
 * Seals a closed day: writes the list of its objects and the head that names it, as the next of the chain. A day that was
 * sealed before gets another revision with what has been added, and none when that is nothing; an empty day gets a head.
 *
 * An object is listed with the size and hash of its row: what was archived, whatever lies there now. The list is written
 * first: a crash before the head is there leaves a list that nothing names, and the next try overwrites it.
 *
 * To be called by one process at a time, after rows and objects of the day were compared. Memory does not grow with the
 * number of objects.
 *
 * @returns the head; `undefined` when there was nothing to add.
 * @throws FailureError
 */
export async function sealDay(parts: SealParts, dt: string, signal: AbortSignal): Promise<ManifestHead | undefined> {
  const { files, duck, store, folder, now } = parts;
  const work = await mkdtemp(join(folder, 'seal-'));
  try {
    const places = await listHeads(files, signal);
    const revisions = places.filter((place) => place.dt === dt);
    const listing = join(work, 'objects.ndjson');
    await writeListing(objectsOfDay(parts, dt, signal), listing);
    const rows = await downloadRows(files, dayPrefix('media', dt), work, () => true, signal);
    const sealed = join(work, 'sealed.ndjson');
    await writeSealed(parts, work, revisions, sealed, signal);
    const sequence = (places.at(-1)?.sequence ?? 0) + 1;
    const place = { dt, sequence };
    const path = join(work, 'list.ndjson.gz');
    const { news, unlisted, missing } = await outOfMemory(duck, signal, () =>
      compare(parts, work, { listing, rows, sealed }, signal),
    );
    const list = await writeList(parts, news, path, signal);
    if (revisions.length > 0 && list.objects === 0) return undefined;
    const head: ManifestHead = {
      v: 1,
      sequence,
      dt,
      revision: revisions.length + 1,
      objects: list.objects,
      bytes: list.bytes,
      unlisted,
      missing,
      list: { key: listKey(place), sha256: list.sha256 },
      previous: await previousOf(parts, places.at(-1), signal),
      closedAt: iso(now()),
      writer: WRITER,
    };
    unwrap(await files.putFile(head.list.key, path, LIST_TYPE, signal));
    const body = Buffer.from(headText(head));
    const digest = { sizeBytes: body.byteLength, sha256: sha256Hex(body) };
    const metadata = { 'archived-at': head.closedAt, sha256: digest.sha256 };
    const object = { key: headKey(place), contentType: HEAD_TYPE, metadata, body, digest };
    unwrap(await store.write(object, signal));
    return head;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function* objectsOfDay(
  parts: Pick<FlushParts, 'files'>,
  dt: string,
  signal: AbortSignal,
): AsyncIterable<BucketObject> {
  for await (const app of appsOf(parts.files, signal)) yield* objectsOf(parts, dt, app, signal);
}

/** Writes the keys that earlier revisions of a day have sealed. A list that is gone or spoilt has sealed what it still tells. */
async function writeSealed(
  { files }: Pick<FlushParts, 'files'>,
  work: string,
  revisions: readonly ManifestPlace[],
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const stream = createWriteStream(path);
  for (const place of revisions) {
    const head = (await readLink(files, place, signal))?.head;
    const list = head ?? { list: { key: listKey(place), sha256: '' }, objects: 0, bytes: 0 };
    const take = async ({ key }: { readonly key: string }): Promise<void> => {
      if (!stream.write(`${JSON.stringify({ key })}\n`)) await once(stream, 'drain');
    };
    await readManifest(files, work, list, take, signal);
  }
  stream.end();
  await finished(stream);
}

interface Compared {
  /** A Parquet file with what is to be sealed. */
  readonly news: string;
  readonly unlisted: number;
  readonly missing: number;
}

/** Compares objects, rows and what is sealed already, a join at a time. Of each key one row counts: the latest. */
async function compare(
  { duck }: Pick<FlushParts, 'duck'>,
  work: string,
  { listing, rows, sealed }: { readonly listing: string; readonly rows: readonly string[]; readonly sealed: string },
  signal: AbortSignal,
): Promise<Compared> {
  const files = Object.fromEntries(
    ['objects', 'rows', 'sealed', 'there', 'news'].map((name) => [name, join(work, `${name}.parquet`)]),
  );
  const path = (name: string): string => files[name] ?? '';
  const table = (name: string): string => `read_parquet(${sqlText(path(name))})`;
  const none = '(SELECT NULL::VARCHAR AS key, NULL::BIGINT AS size_bytes, NULL::VARCHAR AS sha256 WHERE false)';
  const source = rows.length === 0 ? none : fromParquet(rows);
  const latest = `SELECT key, arg_max(size_bytes, archived_at) AS size_bytes, arg_max(sha256, archived_at) AS sha256
    FROM ${source} GROUP BY key`;
  const once = rows.length === 0 ? source : await onceEach(duck, source, latest, signal);
  const keys = [{ name: 'key', type: 'VARCHAR' }] as const;
  await toParquet(duck, `SELECT key FROM ${fromNdjson(listing, LISTING_COLUMNS)}`, path('objects'), signal);
  await toParquet(duck, `SELECT key, size_bytes, sha256 FROM ${once}`, path('rows'), signal);
  await toParquet(duck, `SELECT key FROM ${fromNdjson(sealed, keys)}`, path('sealed'), signal);
  await toParquet(
    duck,
    `SELECT r.* FROM ${table('rows')} AS r SEMI JOIN ${table('objects')} AS o ON r.key = o.key`,
    path('there'),
    signal,
  );
  await toParquet(
    duck,
    `SELECT t.* FROM ${table('there')} AS t ANTI JOIN ${table('sealed')} AS s ON t.key = s.key`,
    path('news'),
    signal,
  );
  const [counts] = await duck.rows(
    `SELECT (SELECT count(*) FROM ${table('objects')}) AS objects, (SELECT count(*) FROM ${table('rows')}) AS n,
       (SELECT count(*) FROM ${table('there')}) AS there`,
    signal,
  );
  const count = (name: string): number => Number(counts?.[name]);
  return { news: path('news'), unlisted: count('objects') - count('there'), missing: count('n') - count('there') };
}

/** Writes what is to be sealed, in key order. */
async function writeList(
  { duck }: Pick<FlushParts, 'duck'>,
  news: string,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly objects: number; readonly bytes: number; readonly sha256: string }> {
  const digest = new ListDigest();
  let [objects, bytes] = [0, 0];
  async function* lines(): AsyncIterable<string> {
    for await (const page of pagesByKey(duck, news, '', signal)) {
      let text = '';
      for (const row of page) {
        const object = { key: String(row['key']), size: Number(row['size_bytes']), sha256: String(row['sha256']) };
        const line = lineText(object);
        digest.add(line, object);
        objects += 1;
        bytes += object.size;
        text += `${line}\n`;
      }
      yield text;
    }
  }
  await pipeline(Readable.from(lines()), createGzip(), createWriteStream(path));
  return { objects, bytes, sha256: digest.digest() };
}

async function previousOf(
  { files }: Pick<FlushParts, 'files'>,
  tip: ManifestPlace | undefined,
  signal: AbortSignal,
): Promise<ManifestHead['previous']> {
  if (tip === undefined) return null;
  const link = await readLink(files, tip, signal);
  // It was listed a moment ago.
  if (link === undefined)
    throw new FailureError(failure('store-busy', { detail: `${headKey(tip)} was there and is gone` }));
  return { sequence: link.sequence, dt: link.dt, sha256: link.sha256 };
}
