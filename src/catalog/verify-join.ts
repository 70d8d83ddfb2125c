import { rm } from 'node:fs/promises';
import { type Duck, fromNdjson, fromParquet, sqlText } from './duck.ts';
import { onceEach, toParquet } from './large-queries.ts';
import type { AnyRow } from './table.ts';
import type { Difference, Witnesses } from './verify-judge.ts';

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
 * Puts listing, rows and sealed lines of each key together. Step by step, each through a file: one join is as much as the
 * memory that DuckDB is given holds.
 */
export async function joinAll(
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
export async function tellTwice(
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

export function witnessesOf(row: AnyRow): Witnesses {
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
