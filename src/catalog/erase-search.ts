import { once } from 'node:events';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { finished } from 'node:stream/promises';
import { annotationsOf, factsOf } from '../archive/object-metadata.ts';
import { deadLetterSchema, invalidJobId } from '../dead-letter/dead-letter.ts';
import { mediaJobSchema } from '../media/media-job.ts';
import type { BucketFiles, ObjectVersion } from '../store/bucket-files.ts';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';
import type { VersionSweep } from '../store/version-sweep.ts';
import { partitionOfKey, partitionPrefix } from './catalog-keys.ts';
import { daysOf } from './days.ts';
import { type Duck, fromNdjson, fromParquet, sqlList, sqlText } from './duck.ts';
import { isTheirs, mediaIdOf, type Wanted } from './erase-wanted.ts';
import { unwrap } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import { localPath } from './parquet.ts';
import type { TableName } from './table.ts';

/** The app of a letter of what named none. */
export const NO_APP = 'unknown';
/** Objects looked at at once. */
const AT_ONCE = 16;

const LISTING = [
  { name: 'key', type: 'VARCHAR' },
  { name: 'media_id', type: 'VARCHAR' },
  { name: 'version_id', type: 'VARCHAR' },
] as const;

export interface SearchParts {
  readonly files: BucketFiles;
  readonly sweep: VersionSweep;
  readonly duck: Duck;
  /** On this machine's disk: the keys of an app's media, some 200 bytes each, lie there for a while. */
  readonly folder: string;
}

/**
 * Finds what media of a person the bucket holds, and adds them to `wanted`: by the rows of the catalog; and what has no
 * row, by what it says of itself: objects, annotations that an attempt has left without an object, dead letters. Changes
 * nothing. Memory grows with what is found alone.
 *
 * @throws FailureError
 */
export async function searchBucket(parts: SearchParts, wanted: Wanted, signal: AbortSignal): Promise<void> {
  const { files, sweep, duck } = parts;
  const { appId, openIds } = wanted;
  const work = await mkdtemp(join(parts.folder, 'erase-search-'));
  try {
    if (openIds.size > 0) {
      const media = await searchRows('media');
      const letters = await searchRows('dead-letters');
      await searchObjects(media);
      await searchAnnotations(media);
      await searchLetters(`${DEAD_LETTER_PREFIX}app=${appId}/`, letters);
    } else await searchLetters(`${DEAD_LETTER_PREFIX}app=${appId}/`, undefined);
    await searchLetters(`${DEAD_LETTER_PREFIX}app=${NO_APP}/`, undefined);
  } finally {
    await rm(work, { recursive: true, force: true });
  }

  /** Looks through the rows of a table. Returns files with what they tell of: `key` and `media_id`. */
  async function searchRows(table: TableName): Promise<readonly string[]> {
    const known: string[] = [];
    const ids = sqlList([...openIds]);
    const labels = table === 'media' ? ` OR list_has_any(map_values(labels), ${ids})` : '';
    for await (const dt of daysOf(files, table, signal)) {
      for await (const { key } of files.list(partitionPrefix({ table, dt, app: appId }), signal)) {
        const path = localPath(work, key);
        if (partitionOfKey(key) === undefined || !unwrap(await files.getFile(key, path, signal))) continue;
        const source = fromParquet([path]);
        const theirs = `list_contains(${ids}, open_id)${labels}`;
        for (const { media_id: mediaId } of await duck.rows(
          `SELECT DISTINCT media_id FROM ${source} WHERE app_id = ${sqlText(appId)} AND (${theirs})`,
          signal,
        )) {
          wanted.mediaIds.add(String(mediaId));
        }
        const kept = `${path}.known`;
        await duck.run(`COPY (SELECT key, media_id FROM ${source}) TO ${sqlText(kept)} (FORMAT parquet)`, signal);
        known.push(kept);
        await rm(path);
      }
    }
    return known;
  }

  async function searchObjects(known: readonly string[]): Promise<void> {
    const unknown = await listUnknown(`media/app=${appId}/`, known, 'key');
    await inParallel(AT_ONCE, unknown, async (version) => {
      const facts = factsOf((await sweep.metadataOf(version, signal)) ?? {});
      if (facts !== undefined && isTheirs(wanted, facts)) wanted.mediaIds.add(facts.mediaId);
    });
  }

  async function searchAnnotations(known: readonly string[]): Promise<void> {
    const unknown = await listUnknown(`annotations/app=${appId}/`, known, 'media_id');
    await inParallel(AT_ONCE, unknown, async (version) => {
      const said = annotationsOf(await jsonOf(version));
      const mediaId = mediaIdOf(version.key);
      if (mediaId !== undefined && isTheirs(wanted, said)) wanted.mediaIds.add(mediaId);
    });
  }

  /** @param known `undefined`: only those of what was no MediaJob are looked at. */
  async function searchLetters(prefix: string, known: readonly string[] | undefined): Promise<void> {
    const isInvalid = (key: string): boolean => /\/invalid-[^/]*$/.test(key);
    const look = async (version: ObjectVersion): Promise<void> => {
      const document = await jsonOf(version);
      const letter = deadLetterSchema.safeParse(document).data;
      const job = letter?.deadline === null ? undefined : mediaJobSchema.safeParse(letter?.job).data;
      if (job !== undefined) {
        if (isTheirs(wanted, { ...job.source, labels: job.labels })) wanted.mediaIds.add(job.mediaId);
      } else if (wanted.isIn(JSON.stringify(document ?? '')) || wanted.isIn(version.key)) {
        wanted.letterKeys.add(version.key);
        if (letter !== undefined) wanted.letterIds.add(invalidJobId(letter.mediaId));
      }
    };
    if (known !== undefined) await inParallel(AT_ONCE, await listUnknown(prefix, known, 'key'), look);
    await inParallel(AT_ONCE, invalidOnes(prefix, isInvalid), look);
  }

  async function* invalidOnes(prefix: string, isInvalid: (key: string) => boolean): AsyncIterable<ObjectVersion> {
    for await (const version of files.versions(prefix, signal))
      if (!version.isDeleteMarker && isInvalid(version.key)) yield version;
  }

  /** Lists what is below a prefix, every version of it, and has no row. */
  async function listUnknown(
    prefix: string,
    known: readonly string[],
    column: 'key' | 'media_id',
  ): Promise<AsyncIterable<ObjectVersion>> {
    const [listing, unknown] = [join(work, 'listing.ndjson'), join(work, 'unknown.ndjson')];
    const stream = createWriteStream(listing);
    let count = 0;
    for await (const { key, versionId, isDeleteMarker } of files.versions(prefix, signal)) {
      const mediaId = mediaIdOf(key);
      if (isDeleteMarker || (mediaId !== undefined && wanted.mediaIds.has(mediaId))) continue;
      count += 1;
      const line = { key, media_id: mediaId ?? null, version_id: versionId ?? null };
      if (!stream.write(`${JSON.stringify(line)}\n`)) await once(stream, 'drain');
    }
    stream.end();
    await finished(stream);
    if (count === 0) return none();
    const rows =
      known.length === 0
        ? ''
        : `WHERE ${column} IS NULL OR ${column} NOT IN (SELECT ${column} FROM ${fromParquet(known)})`;
    const query = `SELECT * FROM ${fromNdjson(listing, LISTING)} ${rows}`;
    await duck.run(`COPY (${query}) TO ${sqlText(unknown)} (FORMAT json)`, signal);
    return versionsIn(unknown);
  }

  async function jsonOf(version: ObjectVersion): Promise<unknown> {
    const bytes = await sweep.read(version, signal);
    try {
      return bytes === undefined ? undefined : JSON.parse(Buffer.from(bytes).toString());
    } catch {
      return undefined;
    }
  }
}

async function* none(): AsyncIterable<ObjectVersion> {
  // Nothing was listed.
}

async function* versionsIn(path: string): AsyncIterable<ObjectVersion> {
  for await (const line of createInterface({ input: createReadStream(path) })) {
    const { key, version_id: versionId } = JSON.parse(line) as { key: string; version_id?: string | null };
    yield { key, isDeleteMarker: false, isLatest: true, ...(versionId == null ? {} : { versionId }) };
  }
}
