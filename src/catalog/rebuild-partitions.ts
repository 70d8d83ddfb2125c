import type { BucketFiles } from '../store/bucket-files.ts';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';
import { dayPrefix } from './catalog-keys.ts';
import { daysOf } from './days.ts';
import type { TableName } from './table.ts';

/** Which days and apps. Days are `YYYY-MM-DD`, and included. */
export interface RebuildScope {
  readonly since?: string;
  readonly until?: string;
  readonly app?: string;
}

/** The tables that the bucket alone can make. What was accepted is told by the outbox alone. */
export type RebuiltTable = Exclude<TableName, 'accepted'>;

export interface RebuiltPartition {
  readonly table: RebuiltTable;
  readonly dt: string;
  readonly app: string;
}

const REBUILT_TABLES = ['media', 'derived', 'dead-letters'] as const satisfies readonly RebuiltTable[];

/** Below them lie folders of apps; below these those of days, or of kinds and then days. */
const ROOTS: Readonly<Record<RebuiltTable, string>> = {
  media: 'media/',
  derived: 'derived/',
  'dead-letters': DEAD_LETTER_PREFIX,
};

/**
 * The partitions for which there are objects, or rows, or both; oldest day first. Found by their folders: what there is
 * of them in ten years of a hundred apps is some 700,000 short texts in memory.
 *
 * @throws FailureError
 */
export async function partitionsToRebuild(
  files: BucketFiles,
  scope: RebuildScope,
  signal: AbortSignal,
): Promise<readonly RebuiltPartition[]> {
  const { since = '', until = '9999-99-99', app: onlyApp } = scope;
  const found = new Map<string, RebuiltPartition>();
  const isWanted = (dt: string, app: string): boolean =>
    dt >= since && dt <= until && (onlyApp === undefined || app === onlyApp);
  const add = (table: RebuiltTable, dt: string, app: string): void => {
    if (isWanted(dt, app)) found.set(`${dt} ${app} ${table}`, { table, dt, app });
  };
  for (const table of REBUILT_TABLES) {
    for await (const ofApp of files.folders(ROOTS[table], signal)) {
      const app = lastOf('app', ofApp);
      if (app === undefined || (onlyApp !== undefined && app !== onlyApp)) continue;
      const parents = table === 'dead-letters' ? [ofApp] : files.folders(ofApp, signal);
      for await (const parent of parents) {
        for await (const folder of files.folders(parent, signal)) {
          const dt = lastOf('dt', folder);
          if (dt !== undefined) add(table, dt, app);
        }
      }
    }
    for await (const dt of daysOf(files, table, signal)) {
      if (dt < since || dt > until) continue;
      for await (const folder of files.folders(dayPrefix(table, dt), signal)) {
        const app = lastOf('app', folder);
        if (app !== undefined) add(table, dt, app);
      }
    }
  }
  return [...found.keys()].toSorted().flatMap((name) => found.get(name) ?? []);
}

/** The apps that may have dead letters of a day, and those that have rows of some. @throws FailureError */
export async function appsOfLetters(files: BucketFiles, dt: string, signal: AbortSignal): Promise<ReadonlySet<string>> {
  const apps = new Set<string>();
  for (const parent of [DEAD_LETTER_PREFIX, dayPrefix('dead-letters', dt)]) {
    for await (const folder of files.folders(parent, signal)) {
      const app = lastOf('app', folder);
      if (app !== undefined) apps.add(app);
    }
  }
  return apps;
}

function lastOf(name: 'app' | 'dt', folder: string): string | undefined {
  const [, found, value] = /\/(app|dt)=([^/]+)\/$/.exec(folder) ?? [];
  if (found !== name || (name === 'dt' && !/^\d{4}-\d{2}-\d{2}$/.test(value ?? ''))) return undefined;
  return value;
}
