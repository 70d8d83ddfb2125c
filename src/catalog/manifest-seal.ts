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
import { fromNdjson, fromParquet } from './duck.ts';
import { type FlushParts, unwrap } from './flush.ts';
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
import { onceEach } from './once-each.ts';
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
    await duck.run(await viewsOf(parts, listing, rows, sealed, signal), signal);

    const sequence = (places.at(-1)?.sequence ?? 0) + 1;
    const place = { dt, sequence };
    const path = join(work, 'list.ndjson.gz');
    const list = await writeList(parts, path, signal);
    if (revisions.length > 0 && list.objects === 0) return undefined;
    const [counts] = await duck.rows(COUNTS, signal);
    const head: ManifestHead = {
      v: 1,
      sequence,
      dt,
      revision: revisions.length + 1,
      objects: list.objects,
      bytes: list.bytes,
      unlisted: Number(counts?.['unlisted']),
      missing: Number(counts?.['missing']),
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

const ROW_COLUMNS = 'key, size_bytes, sha256';

/** Of each key one row: the latest, should there be more. */
async function viewsOf(
  { duck }: Pick<FlushParts, 'duck'>,
  listing: string,
  rows: readonly string[],
  sealed: string,
  signal: AbortSignal,
): Promise<string> {
  const none = '(SELECT NULL::VARCHAR AS key, NULL::BIGINT AS size_bytes, NULL::VARCHAR AS sha256 WHERE false)';
  const source = rows.length === 0 ? none : fromParquet(rows);
  const latest = `SELECT key, arg_max(size_bytes, archived_at) AS size_bytes, arg_max(sha256, archived_at) AS sha256
    FROM ${source} GROUP BY key`;
  const once = rows.length === 0 ? source : await onceEach(duck, source, latest, signal);
  return `
    CREATE OR REPLACE TEMP VIEW seal_objects AS SELECT key FROM ${fromNdjson(listing, LISTING_COLUMNS)};
    CREATE OR REPLACE TEMP VIEW seal_rows AS SELECT ${ROW_COLUMNS} FROM ${once};
    CREATE OR REPLACE TEMP VIEW seal_sealed AS SELECT key FROM ${fromNdjson(sealed, [{ name: 'key', type: 'VARCHAR' }])};`;
}

const NEW_OBJECTS = `
  SELECT ${ROW_COLUMNS} FROM seal_rows SEMI JOIN seal_objects USING (key) ANTI JOIN seal_sealed USING (key) ORDER BY key`;

const COUNTS = `
  SELECT (SELECT count(*) FROM seal_objects ANTI JOIN seal_rows USING (key)) AS unlisted,
    (SELECT count(*) FROM seal_rows ANTI JOIN seal_objects USING (key)) AS missing`;

/** Writes what is to be sealed, in key order. */
async function writeList(
  { duck }: Pick<FlushParts, 'duck'>,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly objects: number; readonly bytes: number; readonly sha256: string }> {
  const digest = new ListDigest();
  let [objects, bytes] = [0, 0];
  async function* lines(): AsyncIterable<string> {
    for await (const page of duck.stream(NEW_OBJECTS, signal)) {
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
