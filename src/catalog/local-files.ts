import type { Dirent } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join, relative, sep } from 'node:path';
import { CATALOG_PREFIX, COMPACTIONS_PREFIX, partitionOfKey, tablePrefix } from './catalog-keys.ts';
import type { TableFiles } from './query.ts';
import { hiddenBy, type Replacement } from './replace-files.ts';
import { isWanted, type Scope } from './scope.ts';
import { TABLE_NAMES, type TableName } from './table.ts';

/**
 * Finds the files of a catalog that was copied to a folder: the bucket as a whole, or what lies below `catalog/` in it.
 * Files that were being replaced when they were copied are left out.
 *
 * @returns `undefined` for a folder that holds no catalog.
 * @throws Error what the disk says, but for a folder that is not there.
 */
export async function localFiles(folder: string, scope: Scope): Promise<TableFiles | undefined> {
  const entries = new Set(await namesIn(folder));
  if (entries.has('catalog')) return filesBelow(join(folder, CATALOG_PREFIX), scope);
  return TABLE_NAMES.some((table) => entries.has(table)) ? filesBelow(folder, scope) : undefined;
}

/** @param root the folder that has the content of `catalog/`. */
async function filesBelow(root: string, scope: Scope): Promise<TableFiles> {
  const keys = new Set<string>();
  for (const table of scope.tables) {
    for (const key of await keysBelow(root, tablePrefix(table)))
      if (isWanted(scope, partitionOfKey(key))) keys.add(key);
  }
  for (const note of await keysBelow(root, COMPACTIONS_PREFIX)) {
    const replacement = JSON.parse(await readFile(pathOf(root, note), 'utf8')) as Replacement;
    for (const key of hiddenBy(replacement, (source) => keys.has(source))) keys.delete(key);
  }
  return filesByTable(root, [...keys], scope);
}

/** @param root the folder that has the content of `catalog/`. */
export function filesByTable(root: string, keys: readonly string[], { tables }: Scope): TableFiles {
  const paths = (table: TableName): string[] =>
    keys
      .filter((key) => partitionOfKey(key)?.table === table)
      .toSorted()
      .map((key) => pathOf(root, key));
  return Object.fromEntries(tables.map((table) => [table, paths(table)]));
}

/** The keys that the files of a folder have in the bucket. */
export async function keysBelow(root: string, prefix: string): Promise<string[]> {
  const entries = await found(() => readdir(pathOf(root, prefix), { withFileTypes: true, recursive: true }));
  return entries
    .filter((entry) => entry.isFile())
    .map((entry: Dirent) => CATALOG_PREFIX + relative(root, join(entry.parentPath, entry.name)).split(sep).join('/'));
}

export function pathOf(root: string, key: string): string {
  return join(root, key.slice(CATALOG_PREFIX.length));
}

function namesIn(folder: string): Promise<string[]> {
  return found(() => readdir(folder));
}

async function found<T>(read: () => Promise<T[]>): Promise<T[]> {
  try {
    return await read();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}
