import { rmSync } from 'node:fs';
import { lstat, mkdir, mkdtemp, readdir, rm, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { HOUR, MINUTE } from '../time.ts';

const PREFIX = 'weixin-media-work-';
const TOUCH_EVERY_MS = MINUTE;
/** Who has not touched its folder for so long is dead. A process id would tell nothing: containers share the folder. */
const LEFT_AFTER_MS = HOUR;

/** A folder of this process, below CATALOG_FOLDER, for files on their way. It goes with the process, unless that is killed. */
export interface WorkFolder extends AsyncDisposable {
  readonly folder: string;
}

export async function openWorkFolder(parent: string, name: string): Promise<WorkFolder> {
  const folder = await mkdtemp(join(parent, `${PREFIX}${name}-`));
  const touch = async (): Promise<void> => {
    const now = new Date();
    // One that stood still for long finds it gone.
    await utimes(folder, now, now).catch(() => mkdir(folder, { recursive: true }));
  };
  const timer = setInterval(() => void touch().catch(() => undefined), TOUCH_EVERY_MS).unref();
  // The second signal ends the process at once, and so does a reader who stops early, as `head` does.
  const removeNow = (): void => rmSync(folder, { recursive: true, force: true });
  process.on('exit', removeNow);
  return {
    folder,
    [Symbol.asyncDispose]: async () => {
      clearInterval(timer);
      // What was given up when the process was asked to stop may still write to it.
      await rm(folder, { recursive: true, force: true, maxRetries: 5 });
      process.off('exit', removeNow);
    },
  };
}

/** Removes the folders of processes that were killed, and returns their names. What can't be removed stays. */
export async function removeLeftFolders(parent: string, now: number): Promise<string[]> {
  const removed: string[] = [];
  for (const name of await readdir(parent)) {
    if (!name.startsWith(PREFIX)) continue;
    const path = join(parent, name);
    const facts = await lstat(path).catch(() => undefined);
    if (facts?.isDirectory() !== true || facts.mtimeMs > now - LEFT_AFTER_MS) continue;
    const isGone = await rm(path, { recursive: true, force: true }).then(
      () => true,
      () => false,
    );
    if (isGone) removed.push(name);
  }
  return removed;
}
