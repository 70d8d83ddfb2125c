import type { StoredObject } from '../store/archive-store.ts';
import { iso } from '../time.ts';
import { dayPrefix } from './catalog-keys.ts';
import type { DerivedRow } from './derived-table.ts';
import { fromParquet, sqlList } from './duck.ts';
import type { FlushParts } from './flush.ts';
import { downloadRows } from './manifest-rows.ts';
import { copyLines } from './parquet.ts';

/** A media of which something may be made. */
export interface DeriveSource {
  readonly app_id: string;
  readonly media_id: string;
  readonly variant?: string | null;
  readonly kind: string;
  readonly key: string;
  readonly size_bytes: number;
  readonly sha256: string;
  readonly sniffed_type: string;
  readonly dt: string;
  /** ISO-8601 UTC. */
  readonly received_at: string;
  /** The recipes that have made something of it. */
  readonly recipes: readonly string[];
}

/**
 * Writes the media of a day that are of these types to a file, a `DeriveSource` a line. Memory does not
 * grow with their number.
 *
 * @throws FailureError
 */
export async function writeSources(
  { files, duck, folder }: FlushParts,
  dt: string,
  types: readonly string[],
  path: string,
  signal: AbortSignal,
): Promise<boolean> {
  const media = await downloadRows(files, dayPrefix('media', dt), folder, () => true, signal);
  if (media.length === 0) return false;
  const derived = await downloadRows(files, dayPrefix('derived', dt), folder, () => true, signal);
  const known =
    derived.length === 0
      ? 'SELECT NULL AS source_key, []::VARCHAR[] AS recipes WHERE false'
      : `SELECT source_key, list(DISTINCT recipe) AS recipes FROM ${fromParquet(derived)} GROUP BY source_key`;
  await copyLines(
    duck,
    `SELECT app_id, media_id, variant, kind, key, size_bytes, sha256, sniffed_type, '${dt}' AS dt,
       strftime(received_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ') AS received_at,
       coalesce(recipes, []) AS recipes
     FROM ${fromParquet(media)} LEFT JOIN (${known}) ON source_key = key
     WHERE sniffed_type IN (SELECT unnest(${sqlList(types)})) ORDER BY key`,
    path,
    signal,
  );
  return true;
}

/** Where what is made of a media lies: below its id, so that it is found with it. */
export function derivedKey({ app_id, media_id, variant, kind, dt }: DeriveSource, name: string): string {
  const media = variant === null || variant === undefined ? media_id : `${media_id}.${variant}`;
  return `derived/app=${app_id}/kind=${kind}/dt=${dt}/${media}/${name}`;
}

/** What was made, and how: the metadata of its object. ASCII. */
export function derivedMetadata(row: DerivedRow): Record<string, string> {
  return {
    'app-id': row.app_id,
    'media-id': row.media_id,
    ...(row.variant === null ? {} : { variant: row.variant }),
    name: row.name,
    sha256: row.sha256,
    'source-key': row.source_key,
    'source-sha256': row.source_sha256,
    recipe: row.recipe,
    tool: row.tool,
    'received-at': row.received_at,
    'derived-at': row.derived_at,
    schema: '1',
  };
}

/** Makes the row of a derived file from its object alone; `undefined` where it is none of ours. */
export function derivedRowOf({ key, sizeBytes, contentType, metadata }: StoredObject): DerivedRow | undefined {
  const text = (name: string): string | undefined => metadata[name];
  const [receivedAt, derivedAt] = [Date.parse(text('received-at') ?? ''), Date.parse(text('derived-at') ?? '')];
  const wanted = ['app-id', 'media-id', 'name', 'sha256', 'source-key', 'source-sha256', 'recipe', 'tool'].map(text);
  const [appId, mediaId, name, sha256, sourceKey, sourceSha256, recipe, tool] = wanted;
  if (appId === undefined || mediaId === undefined || name === undefined || sha256 === undefined) return undefined;
  if (sourceKey === undefined || sourceSha256 === undefined || recipe === undefined || tool === undefined)
    return undefined;
  if (Number.isNaN(receivedAt) || Number.isNaN(derivedAt)) return undefined;
  return {
    app_id: appId,
    media_id: mediaId,
    variant: text('variant') ?? null,
    name,
    key,
    size_bytes: sizeBytes,
    sha256,
    content_type: contentType ?? 'application/octet-stream',
    source_key: sourceKey,
    source_sha256: sourceSha256,
    recipe,
    tool,
    received_at: iso(receivedAt),
    derived_at: iso(derivedAt),
  };
}
