import { execFile } from 'node:child_process';
import { access, constants, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

/**
 * Finds a program, or unpacks it from its Debian package into the folder for temporary files: nothing is installed, and no
 * service started.
 *
 * @param path of the program in the package.
 * @throws Error that says what to install.
 */
export async function provideProgram(name: string, path: string): Promise<string> {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/bin'];
  for (const folder of folders.filter((one) => one !== '')) {
    if (await isExecutable(join(folder, name))) return join(folder, name);
  }
  const unpacked = join(tmpdir(), `weixin-media-bench-${process.getuid?.() ?? 0}-${name}`);
  if (await isExecutable(join(unpacked, path))) return join(unpacked, path);
  process.stderr.write(`unpacking ${name} from the distribution\n`);
  const work = `${unpacked}.${process.pid}`;
  try {
    await mkdir(work, { mode: 0o700 });
    await run('apt-get', ['download', name], { cwd: work });
    const [archive] = await readdir(work);
    await run('dpkg', ['-x', archive ?? '', 'root'], { cwd: work });
    await rename(join(work, 'root'), unpacked);
  } catch {
    // Said below.
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  if (await isExecutable(join(unpacked, path))) return join(unpacked, path);
  throw new Error(`${name} is needed and was not found: run \`sudo apt-get install ${name}\``);
}

function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}
