import type { Partition } from './catalog-keys.ts';
import type { TableName } from './table.ts';

/** Which files of the catalog are wanted. */
export interface Scope {
  readonly tables: readonly TableName[];
  /** The first day, `YYYY-MM-DD`. */
  readonly since?: string;
  /** The last day. */
  readonly until?: string;
  /** One account. The files of `accepted` hold all of them. */
  readonly app?: string;
}

export function hasDay({ since, until }: Scope, dt: string): boolean {
  return (since === undefined || dt >= since) && (until === undefined || dt <= until);
}

export function isWanted(scope: Scope, partition: Partition | undefined): boolean {
  if (partition === undefined || !scope.tables.includes(partition.table) || !hasDay(scope, partition.dt)) return false;
  return scope.app === undefined || partition.app === undefined || partition.app === scope.app;
}
