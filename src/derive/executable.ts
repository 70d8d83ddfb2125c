import { constants } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { delimiter, isAbsolute } from 'node:path';

/** Returns the absolute folders of a search path, in order: a program is never looked for where we happen to stand. */
export function foldersOf(searchPath: string): string[] {
  return searchPath.split(delimiter).filter(isAbsolute);
}

export async function isExecutable(path: string): Promise<boolean> {
  const isFile = await stat(path).then(
    (entry) => entry.isFile(),
    () => false,
  );
  if (!isFile) return false;
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
