import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const root = fileURLToPath(new URL('../..', import.meta.url));

/**
 * Builds the package and puts it where a program's own folder would have it after `npm install`, beside everything that
 * is installed here. Returns that folder, which is removed with `parts`.
 */
export async function installPackage(parts: AsyncDisposableStack): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-installed-'));
  parts.defer(() => rm(folder, { recursive: true, force: true }));
  const modules = join(folder, 'node_modules');
  const installed = join(modules, 'weixin-media-archiver');
  await mkdir(installed, { recursive: true });
  for (const name of await readdir(join(root, 'node_modules')))
    await symlink(join(root, 'node_modules', name), join(modules, name));
  await cp(join(root, 'package.json'), join(installed, 'package.json'));
  const build = ['-p', 'tsconfig.build.json', '--outDir', join(installed, 'dist'), '--declaration', 'false'];
  await promisify(execFile)(process.execPath, [join(root, 'node_modules/typescript/bin/tsc'), ...build], { cwd: root });
  return folder;
}
