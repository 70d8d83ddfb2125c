import type { BucketFiles } from '../store/bucket-files.ts';
import { DEAD_LETTER_PREFIX, dayOf } from '../store/object-keys.ts';
import { DAY, HOUR, iso } from '../time.ts';
import { tablePrefix } from './catalog-keys.ts';
import type { TableName } from './table.ts';

/** How long after its last possible deadline a day is closed. What was archived in time is in the outbox by then. */
export const DEFAULT_CLOSE_AFTER_MS = 6 * HOUR;

/** The day after. @param dt `YYYY-MM-DD`. */
export function dayAfter(dt: string): string {
  return dayOf(iso(Date.parse(dt) + DAY));
}

/** The days from `since` to `until`, both included, oldest first. */
export function* daysBetween(since: string, until: string): Iterable<string> {
  for (let dt = since; dt <= until; dt = dayAfter(dt)) yield dt;
}

/** When a day may be closed, as a Unix time in milliseconds: nothing of it can be saved any more by then. */
export function closesAt(dt: string, mediaTtlMs: number, closeAfterMs: number): number {
  return Date.parse(dt) + DAY + mediaTtlMs + closeAfterMs;
}

/** The apps that have media in the bucket. @throws FailureError */
export async function* appsOf(files: BucketFiles, signal: AbortSignal): AsyncIterable<string> {
  for await (const folder of files.folders('media/', signal)) {
    const [, app] = /^media\/app=([^/]+)\/$/.exec(folder) ?? [];
    if (app !== undefined) yield app;
  }
}

/** The folders of an app's media, one a kind, as prefixes. @throws FailureError */
export async function* kindFoldersOf(files: BucketFiles, app: string, signal: AbortSignal): AsyncIterable<string> {
  for await (const folder of files.folders(`media/app=${app}/`, signal))
    if (/\/kind=[^/]+\/$/.test(folder)) yield folder;
}

/** The first day of which the bucket holds media, dead letters or rows; `undefined` when there is none. @throws FailureError */
export async function firstDay(files: BucketFiles, signal: AbortSignal): Promise<string | undefined> {
  let first: string | undefined;
  const consider = (folder: string): void => {
    const [, dt] = /\/dt=(\d{4}-\d{2}-\d{2})\/$/.exec(folder) ?? [];
    if (dt !== undefined && (first === undefined || dt < first)) first = dt;
  };
  for await (const dt of daysOf(files, 'media', signal)) {
    consider(`/dt=${dt}/`);
    break;
  }
  for await (const app of files.folders(DEAD_LETTER_PREFIX, signal)) {
    for await (const folder of files.folders(app, signal)) {
      consider(folder);
      break;
    }
  }
  for await (const app of appsOf(files, signal)) {
    for await (const kind of kindFoldersOf(files, app, signal)) {
      // In order: the first is the oldest.
      for await (const folder of files.folders(kind, signal)) {
        consider(folder);
        break;
      }
    }
  }
  return first;
}

/** The days of which a table has files, oldest first. @throws FailureError */
export async function* daysOf(files: BucketFiles, table: TableName, signal: AbortSignal): AsyncIterable<string> {
  for await (const folder of files.folders(tablePrefix(table), signal)) {
    const [, dt] = /\/dt=(\d{4}-\d{2}-\d{2})\/$/.exec(folder) ?? [];
    if (dt !== undefined) yield dt;
  }
}
