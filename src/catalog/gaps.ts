import { appendFile, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { dayPrefix } from './catalog-keys.ts';
import { daysBetween } from './days.ts';
import { fromNdjson, fromParquet, sqlText } from './duck.ts';
import { type FlushParts, partitionOf } from './flush.ts';
import { downloadRows } from './manifest-rows.ts';
import type { OutboxEntry } from './outbox-reader.ts';
import { columnsOf, copyLines, writeNdjson } from './parquet.ts';
import type { Column, TableName } from './table.ts';
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
  /** Each media once, however often it was handed in. */
  readonly accepted: number;
  readonly archived: number;
  /** Given up, and nobody has decided otherwise. */
  readonly dead: number;
  readonly discarded: number;
  /** Archived, and no record says that it was accepted: handed in before there was a catalog. */
  readonly unrecorded: number;
}

/** One media that is neither archived nor given up. */
export interface Unsettled {
  readonly dt: string;
  readonly appId: string;
  readonly mediaId: string;
  readonly variant?: string | null;
  readonly kind: string;
  readonly receivedAt: string;
  readonly acceptedAt: string;
}

export interface Gaps {
  readonly counts: readonly GapCounts[];
  /** Files with an `Unsettled` a line; oldest day first. */
  readonly unsettledPaths: readonly string[];
}

const READ = ['accepted', 'media', 'dead-letters'] as const satisfies readonly TableName[];
type ReadTable = (typeof READ)[number];

/** Media compared at once: what a day has more goes in several passes. */
const MEDIA_AT_ONCE = 500_000;

/**
 * Compares what was accepted with what was archived and given up, by the catalog in the bucket and what still waits in
 * the outbox: a day at a time. Memory does not grow with the number of media, and disk with those of one day.
 *
 * @param waiting what the outbox holds; none where Redis is away.
 * @throws FailureError
 */
export async function findGaps(
  parts: FlushParts,
  scope: GapScope,
  waiting: AsyncIterable<OutboxEntry>,
  signal: AbortSignal,
): Promise<Gaps> {
  const { duck, folder } = parts;
  // The outbox first: what leaves it meanwhile is in the bucket by then, and is counted once.
  const lines = await linesOf(waiting, scope, folder);
  const counts: GapCounts[] = [];
  const unsettledPaths: string[] = [];
  for (const dt of daysBetween(scope.since, scope.until)) {
    await withDay(parts, dt, scope.app, READ, signal, async (paths) => {
      for (const name of READ) await duck.run(viewOf(name, dt, paths[name], lines[name], scope.app), signal);
      const [answer] = await duck.rows(
        'SELECT greatest((SELECT count(*) FROM all_accepted), (SELECT count(*) FROM all_media)) AS n',
        signal,
      );
      const passes = Math.max(1, Math.ceil(Number(answer?.['n']) / MEDIA_AT_ONCE));
      const ofDay = new Map<string, GapCounts>();
      for (let pass = 0; pass < passes; pass += 1) {
        for (const statement of statesOf(pass, passes)) await duck.run(statement, signal);
        for (const row of await duck.rows(COUNTS, signal)) {
          const { app, ...more } = row as unknown as Omit<GapCounts, 'dt'>;
          ofDay.set(app, sum(ofDay.get(app) ?? { dt, app, ...NOTHING }, more));
        }
        const path = join(folder, `unsettled-${dt}-${pass}.ndjson`);
        await copyLines(duck, UNSETTLED.replace('$dt', sqlText(dt)), path, signal);
        unsettledPaths.push(path);
      }
      counts.push(...[...ofDay.values()].toSorted((a, b) => (a.app < b.app ? -1 : 1)));
    });
  }
  return { counts, unsettledPaths };
}

/** One media that seems to be missing. */
export interface Seeming extends Unsettled {
  /** It was archived all the same: lost, and handed in once more with a `receivedAt` of another day. */
  readonly isElsewhere: boolean;
}

/**
 * Tells, of media that seem to be missing, which were archived as of another day. Writes all of them to a file, a
 * `Seeming` a line.
 *
 * @throws FailureError
 */
export async function lookOnOtherDays(
  parts: FlushParts,
  { since, until, app }: GapScope,
  seemingPath: string,
  path: string,
  signal: AbortSignal,
): Promise<void> {
  const { duck } = parts;
  const seeming = `(SELECT *, ${named('"appId"', '"mediaId"')} AS name FROM ${fromNdjson(seemingPath, UNSETTLED_COLUMNS)})`;
  await duck.run('CREATE OR REPLACE TEMP TABLE elsewhere (name UBIGINT)', signal);
  for (const dt of daysBetween(since, until)) {
    await withDay(parts, dt, app, ['media'], signal, async ({ media }) => {
      if (media.length === 0) return;
      const archived = `SELECT ${NAME} AS name FROM ${fromParquet(media)}`;
      await duck.run(`INSERT INTO elsewhere SELECT name FROM (${archived}) SEMI JOIN ${seeming} USING (name)`, signal);
    });
  }
  const isElsewhere = 'name IN (SELECT name FROM elsewhere) AS "isElsewhere"';
  await copyLines(duck, `SELECT * EXCLUDE (name), ${isElsewhere} FROM ${seeming}`, path, signal);
}

/** Has the files of a day on disk for as long as something is done with them. */
async function withDay<T extends TableName>(
  { files, folder }: FlushParts,
  dt: string,
  wantedApp: string | undefined,
  tables: readonly T[],
  signal: AbortSignal,
  work: (paths: Readonly<Record<T, readonly string[]>>) => Promise<void>,
): Promise<void> {
  const target = join(folder, `day-${dt}`);
  await mkdir(target);
  try {
    const paths = {} as Record<T, readonly string[]>;
    for (const name of tables) {
      const isWanted = ({ app }: { readonly app?: string }): boolean =>
        wantedApp === undefined || app === undefined || app === wantedApp;
      paths[name] = await downloadRows(files, dayPrefix(name, dt), target, isWanted, signal);
    }
    await work(paths);
  } finally {
    await rm(target, { recursive: true, force: true });
  }
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
    const wanted = rows.flatMap((row) => {
      const { dt } = partitionOf(table, row);
      return dt >= since && dt <= until ? { ...row, dt } : [];
    });
    await appendFile(paths[table.name], wanted.map((row) => `${JSON.stringify(row)}\n`).join(''));
  }
  return paths;
}

/** What the outbox holds is newer than what lies in the bucket. */
function viewOf(name: ReadTable, dt: string, paths: readonly string[], lines: string, app: string | undefined): string {
  const table = TABLES[name];
  const columns = columnsOf(table);
  const ofApp = app === undefined ? '' : `WHERE app_id = ${sqlText(app)}`;
  const source = fromNdjson(lines, [...table.columns, { name: 'dt', type: 'VARCHAR' }]);
  const waiting = `SELECT ${columns}, 1 AS newer FROM ${source} WHERE dt = ${sqlText(dt)}`;
  const there = paths.length === 0 ? '' : `UNION ALL SELECT ${columns}, 0 AS newer FROM ${fromParquet(paths)}`;
  const view = `all_${name.replaceAll('-', '_')}`;
  return `CREATE OR REPLACE VIEW ${view} AS SELECT *, ${NAME} AS name FROM (${waiting} ${there}) ${ofApp}`;
}

/**
 * Of a media: 64 bits in place of a hundred characters. That one of a thousand that are missing is taken for one of a
 * million others happens once in ten thousand million times.
 */
function named(app: string, media: string): string {
  return `hash(${app}, ${media}, variant)`;
}

const NAME = named('app_id', 'media_id');

/** Of one death and one replay there may be several states: the outbox tells each. */
const LATEST = `(newer, died_at, replays, CASE status WHEN 'open' THEN 0 WHEN 'replayed' THEN 1 WHEN 'resolved' THEN 2 ELSE 3 END)`;

function statesOf(pass: number, passes: number): readonly string[] {
  const ofPass = `name % ${passes} = ${pass}`;
  return [
    `CREATE OR REPLACE TEMP TABLE accepted AS SELECT DISTINCT name, app_id AS app FROM all_accepted WHERE ${ofPass}`,
    `CREATE OR REPLACE TEMP TABLE archived AS SELECT DISTINCT name, app_id AS app FROM all_media WHERE ${ofPass}`,
    `CREATE OR REPLACE TEMP TABLE letters AS SELECT name, app_id AS app, arg_max(status, ${LATEST}) AS status
      FROM all_dead_letters WHERE received_at IS NOT NULL AND ${ofPass} GROUP BY ALL`,
    `CREATE OR REPLACE TEMP TABLE unsettled AS SELECT name FROM accepted ANTI JOIN archived USING (name)
      ANTI JOIN (SELECT name FROM letters WHERE status <> 'replayed') AS settled USING (name)`,
  ];
}

const COUNTS = `
SELECT app, sum(accepted)::BIGINT AS accepted, sum(archived)::BIGINT AS archived, sum(dead)::BIGINT AS dead,
  sum(discarded)::BIGINT AS discarded, sum(unrecorded)::BIGINT AS unrecorded
FROM (
  SELECT app, count(*) AS accepted, 0 AS archived, 0 AS dead, 0 AS discarded, 0 AS unrecorded FROM accepted GROUP BY app
  UNION ALL SELECT app, 0, count(*), 0, 0, 0 FROM archived GROUP BY app
  UNION ALL SELECT app, 0, 0, 0, 0, count(*) FROM archived ANTI JOIN accepted USING (name) GROUP BY app
  UNION ALL SELECT app, 0, 0, count(*) FILTER (WHERE status = 'open'), count(*) FILTER (WHERE status = 'discarded'), 0
    FROM letters ANTI JOIN archived USING (name) GROUP BY app
) GROUP BY app`;

const TIME = "'%Y-%m-%dT%H:%M:%S.%gZ'";
const UNSETTLED = `
SELECT $dt AS dt, any_value(app_id) AS "appId", any_value(media_id) AS "mediaId", any_value(variant) AS variant,
  any_value(kind) AS kind, strftime(min(received_at) AT TIME ZONE 'UTC', ${TIME}) AS "receivedAt",
  strftime(min(accepted_at) AT TIME ZONE 'UTC', ${TIME}) AS "acceptedAt"
FROM all_accepted SEMI JOIN unsettled USING (name) GROUP BY name ORDER BY 6, 3`;

const UNSETTLED_COLUMNS: readonly Pick<Column, 'name' | 'type'>[] = [
  'dt',
  'appId',
  'mediaId',
  'variant',
  'kind',
  'receivedAt',
  'acceptedAt',
].map((name) => ({ name, type: 'VARCHAR' }));

const NOTHING = { accepted: 0, archived: 0, dead: 0, discarded: 0, unrecorded: 0 };

function sum(counts: GapCounts, more: Omit<GapCounts, 'dt' | 'app'>): GapCounts {
  return {
    ...counts,
    accepted: counts.accepted + more.accepted,
    archived: counts.archived + more.archived,
    dead: counts.dead + more.dead,
    discarded: counts.discarded + more.discarded,
    unrecorded: counts.unrecorded + more.unrecorded,
  };
}
