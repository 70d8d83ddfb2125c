import type { TableName } from './table.ts';

/** A Hive partition of a table. `accepted` has one a day, the others one a day and app. */
export interface Partition {
  readonly table: TableName;
  /** `YYYY-MM-DD`. */
  readonly dt: string;
  readonly app?: string;
}

export const CATALOG_PREFIX = 'catalog/';
export const COMPACTIONS_PREFIX = `${CATALOG_PREFIX}compactions/`;
/** What the catalog process remembers from turn to turn. */
export const CATALOG_STATE_KEY = `${CATALOG_PREFIX}state.json`;

export function tablePrefix(table: TableName): string {
  return `${CATALOG_PREFIX}${table}/`;
}

export function dayPrefix(table: TableName, dt: string): string {
  return `${tablePrefix(table)}dt=${dt}/`;
}

export function partitionPrefix({ table, dt, app }: Partition): string {
  return app === undefined ? dayPrefix(table, dt) : `${dayPrefix(table, dt)}app=${app}/`;
}

/** Takes the key of a catalog file apart; `undefined` for any other key. */
export function partitionOfKey(key: string): Partition | undefined {
  const [, table, dt, app] =
    /^catalog\/(media|dead-letters|accepted|derived)\/dt=(\d{4}-\d{2}-\d{2})\/(?:app=([^/]+)\/)?[^/]+\.parquet$/.exec(
      key,
    ) ?? [];
  if (table === undefined || dt === undefined) return undefined;
  return { table: table as TableName, dt, ...(app === undefined ? {} : { app }) };
}

/** The one file of dead letters in a partition: rewritten, never added to. */
export function lettersKey(dt: string, app: string): string {
  return `${partitionPrefix({ table: 'dead-letters', dt, app })}letters.parquet`;
}

/** Named after the ids of the outbox that it holds: a flush that is repeated writes the same file. */
export function partKey(partition: Partition, firstId: string, lastId: string): string {
  return `${partitionPrefix(partition)}${sortable(firstId)}_${sortable(lastId)}.parquet`;
}

/** The id of a stream entry, `<ms>-<seq>`, so that texts compare as ids do. */
export function sortable(id: string): string {
  const [ms = '0', seq = '0'] = id.split('-');
  return `${ms.padStart(15, '0')}-${seq.padStart(6, '0')}`;
}

/** Where it is noted which files of a partition are being replaced by which. */
export function replacementKey({ table, dt, app }: Partition): string {
  return `${COMPACTIONS_PREFIX}${table}/dt=${dt}/${app === undefined ? 'all' : `app=${app}`}.json`;
}
