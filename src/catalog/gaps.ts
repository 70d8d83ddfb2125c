import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { tablePrefix } from './catalog-keys.ts';
import { fromNdjson, fromParquet, sqlText } from './duck.ts';
import { type FlushParts, partitionOf } from './flush.ts';
import { downloadRows } from './manifest-rows.ts';
import type { OutboxEntry } from './outbox-reader.ts';
import { columnsOf, copyLines, writeNdjson } from './parquet.ts';
import type { TableName } from './table.ts';
import { TABLES } from './tables.ts';

/** Which days and apps. Days are included. */
export interface GapScope {
  readonly since: string;
  readonly until: string;
  readonly app?: string;
}

/** What became of what was accepted, of one day and app. */
export interface GapCounts {
  readonly dt: string;
  readonly app: string;
  readonly accepted: number;
  readonly archived: number;
  /** Given up, and nobody has decided otherwise. */
  readonly dead: number;
  readonly discarded: number;
  /** Accepted, and neither archived nor given up. */
  readonly unsettled: number;
  /** Archived, and no record says that it was accepted: handed in before there was a catalog. */
  readonly unrecorded: number;
}

/** One media that is neither archived nor given up. */
export interface Unsettled {
  readonly dt: string;
  readonly appId: string;
  readonly mediaId: string;
  readonly variant?: string;
  readonly kind: string;
  readonly receivedAt: string;
  readonly acceptedAt: string;
}

export interface Gaps {
  readonly counts: readonly GapCounts[];
  /** A file with an `Unsettled` a line, in the order of their deadlines. */
  readonly unsettledPath: string;
}

const READ: readonly TableName[] = ['accepted', 'media', 'dead-letters'];

/**
 * Compares what was accepted with what was archived and given up, by the catalog in the bucket and what still waits in
 * the outbox. Memory does not grow with the number of media.
 *
 * @param waiting what the outbox holds; none where Redis is away.
 * @throws FailureError
 */
export async function findGaps(
  { files, duck, folder }: FlushParts,
  scope: GapScope,
  waiting: AsyncIterable<OutboxEntry>,
  signal: AbortSignal,
): Promise<Gaps> {
  // The outbox first: what leaves it meanwhile is in the bucket by then, and is counted once.
  const lines = await linesOf(waiting, scope, folder);
  for (const name of READ) {
    const paths = await downloadRows(
      files,
      tablePrefix(name),
      folder,
      ({ dt, app }) =>
        dt >= scope.since && dt <= scope.until && (scope.app === undefined || app === undefined || app === scope.app),
      signal,
    );
    await duck.run(viewOf(name, paths, lines[name]), signal);
  }
  await duck.run(STATES, signal);
  const ofApp = scope.app === undefined ? '' : `AND app = ${sqlText(scope.app)}`;
  const counts = (await duck.rows(`${COUNTS} HAVING true ${ofApp} ORDER BY dt, app`, signal)) as unknown as GapCounts[];
  const unsettledPath = join(folder, 'unsettled.ndjson');
  await copyLines(duck, `${UNSETTLED} ${ofApp} ORDER BY received_at, media_id`, unsettledPath, signal);
  return { counts, unsettledPath };
}

async function linesOf(
  waiting: AsyncIterable<OutboxEntry>,
  { since, until }: GapScope,
  folder: string,
): Promise<Record<TableName, string>> {
  const paths = Object.fromEntries(
    Object.keys(TABLES).map((name) => [name, join(folder, `outbox-${name}.ndjson`)]),
  ) as Record<TableName, string>;
  for (const path of Object.values(paths)) await writeNdjson(path, []);
  for await (const { table, rows } of waiting) {
    const wanted = rows.filter((row) => {
      const { dt } = partitionOf(table, row);
      return dt >= since && dt <= until;
    });
    await appendFile(paths[table.name], wanted.map((row) => `${JSON.stringify(row)}\n`).join(''));
  }
  return paths;
}

/** What the outbox holds is newer than what lies in the bucket. */
function viewOf(name: TableName, paths: readonly string[], lines: string): string {
  const table = TABLES[name];
  const columns = columnsOf(table);
  const waiting = `SELECT ${columns}, 1 AS newer FROM ${fromNdjson(lines, table.columns)}`;
  const there = paths.length === 0 ? '' : `UNION ALL SELECT ${columns}, 0 AS newer FROM ${fromParquet(paths)}`;
  return `CREATE OR REPLACE VIEW "all_${name}" AS ${waiting} ${there}`;
}

const NAME = "app_id || ' ' || media_id || ' ' || coalesce(variant, '')";
const DAY = "strftime(received_at AT TIME ZONE 'UTC', '%Y-%m-%d')";

const STATES = `
CREATE OR REPLACE TEMP TABLE accepted AS
  SELECT ${NAME} AS name, any_value(app_id) AS app, any_value(media_id) AS media_id, any_value(variant) AS variant,
    any_value(kind) AS kind, min(received_at) AS received_at, min(accepted_at) AS accepted_at, min(${DAY}) AS dt
  FROM "all_accepted" GROUP BY ${NAME};
CREATE OR REPLACE TEMP TABLE archived AS
  SELECT DISTINCT ${NAME} AS name, app_id AS app, ${DAY} AS dt FROM "all_media";
CREATE OR REPLACE TEMP TABLE letters AS
  SELECT ${NAME} AS name, app_id AS app, ${DAY} AS dt, arg_max(status, (newer, died_at, replays)) AS status
  FROM "all_dead-letters" WHERE received_at IS NOT NULL GROUP BY ALL;
CREATE OR REPLACE TEMP VIEW unsettled AS
  SELECT * FROM accepted WHERE name NOT IN (SELECT name FROM archived)
    AND name NOT IN (SELECT name FROM letters WHERE status IN ('open', 'discarded', 'resolved'))`;

const COUNTS = `
SELECT dt, app, sum(accepted)::BIGINT AS accepted, sum(archived)::BIGINT AS archived, sum(dead)::BIGINT AS dead,
  sum(discarded)::BIGINT AS discarded, sum(unsettled)::BIGINT AS unsettled, sum(unrecorded)::BIGINT AS unrecorded
FROM (
  SELECT dt, app, count(DISTINCT name) AS accepted, 0 AS archived, 0 AS dead, 0 AS discarded, 0 AS unsettled, 0 AS unrecorded
    FROM accepted GROUP BY ALL
  UNION ALL SELECT dt, app, 0, count(*), 0, 0, 0, count(*) FILTER (WHERE name NOT IN (SELECT name FROM accepted)) FROM archived GROUP BY ALL
  UNION ALL SELECT dt, app, 0, 0, count(*) FILTER (WHERE status = 'open'), count(*) FILTER (WHERE status = 'discarded'), 0, 0
    FROM letters WHERE name NOT IN (SELECT name FROM archived) GROUP BY ALL
  UNION ALL SELECT dt, app, 0, 0, 0, 0, count(DISTINCT name), 0 FROM unsettled GROUP BY ALL
) GROUP BY dt, app`;

const UNSETTLED = `
SELECT dt, app AS "appId", media_id AS "mediaId", variant, kind,
  strftime(received_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ') AS "receivedAt",
  strftime(accepted_at AT TIME ZONE 'UTC', '%Y-%m-%dT%H:%M:%S.%gZ') AS "acceptedAt"
FROM unsettled WHERE true`;
