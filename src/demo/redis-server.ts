import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { constants } from 'node:fs';
import { access, mkdir } from 'node:fs/promises';
import { createServer } from 'node:net';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { closeRedis, connectRedis, untilReady } from '../redis/connect.ts';
import { Secret } from '../secret.ts';
import { MINUTE, SECOND } from '../time.ts';

const run = promisify(execFile);

/** Where distributions put servers that a plain user's PATH may lack. */
const SYSTEM_FOLDERS = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin'];
const NAMES = ['redis-server', 'valkey-server'];

const START_TIMEOUT_MS = 10 * SECOND;
const INSTALL_TIMEOUT_MS = 5 * MINUTE;

/** A redis-server of our own, on loopback. */
export interface RedisServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  readonly process: ChildProcess;
  /** Ends it in good order, so that what it accepted is on disk. */
  stop(): Promise<void>;
}

export interface RedisServerOptions {
  /** Its working directory, made if it is not there. What lies there is loaded. */
  readonly directory: string;
  readonly appendOnly: boolean;
  readonly port?: number;
  /** Further arguments of redis-server. */
  readonly arguments?: readonly string[];
}

/** Finds redis-server, or installs it from the distribution where we are root. @throws Error naming the command to run. */
export async function provideRedisServer(note: (text: string) => void): Promise<string> {
  const found = await findExecutable();
  if (found !== undefined) return found;
  const mayInstall = process.getuid?.() === 0 && (await isExecutable('/usr/bin/apt-get'));
  if (!mayInstall) throw new Error('redis-server is needed and was not found: run `sudo apt-get install redis-server`');
  note('installing redis-server from the distribution');
  const options = { timeout: INSTALL_TIMEOUT_MS };
  await run('apt-get', ['update', '-qq'], options).catch(() => undefined);
  await run('apt-get', ['install', '-y', '-qq', '--no-install-recommends', 'redis-server'], options);
  const installed = await findExecutable();
  if (installed === undefined)
    throw new Error('redis-server could not be installed: run `apt-get install redis-server`');
  return installed;
}

async function findExecutable(): Promise<string | undefined> {
  // biome-ignore lint/style/noProcessEnv: the search path of this machine, not a setting of ours
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), ...SYSTEM_FOLDERS];
  for (const name of NAMES) {
    for (const folder of folders) {
      if (folder !== '' && (await isExecutable(join(folder, name)))) return join(folder, name);
    }
  }
  return undefined;
}

async function isExecutable(path: string): Promise<boolean> {
  return access(path, constants.X_OK).then(
    () => true,
    () => false,
  );
}

/** Starts a redis-server and resolves when it answers. */
export async function startRedisServer(executable: string, options: RedisServerOptions): Promise<RedisServer> {
  const { directory, appendOnly, arguments: more = [] } = options;
  await mkdir(directory, { recursive: true });
  const port = options.port ?? (await freePort());
  const flags = ['--port', String(port), '--bind', '127.0.0.1', '--dir', directory, '--save', '', '--daemonize', 'no'];
  const durability = ['--appendonly', appendOnly ? 'yes' : 'no', '--maxmemory-policy', 'noeviction'];
  const child = spawn(executable, [...flags, ...durability, ...more], { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    said = (said + chunk.toString()).slice(-2_000);
  });
  const ended = new AbortController();
  child.once('exit', (code) => ended.abort(new Error(`redis-server ended with ${code}: ${said}`)));

  const url = `redis://127.0.0.1:${port}`;
  const client = connectRedis(
    { url: new Secret(url), prefix: '', sentinelMaster: '' },
    'patient',
    'starting',
    () => undefined,
  );
  try {
    await untilReady(client, AbortSignal.any([ended.signal, AbortSignal.timeout(START_TIMEOUT_MS)]));
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  } finally {
    await closeRedis(client);
  }

  const stop = async (): Promise<void> => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    child.once('exit', () => resolve());
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 5 * SECOND);
    await promise;
    clearTimeout(timer);
  };
  return { url, port, process: child, stop, [Symbol.asyncDispose]: stop };
}

/** Returns a port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const address = server.address();
  const closed = Promise.withResolvers<void>();
  server.close(() => closed.resolve());
  await closed.promise;
  return typeof address === 'object' && address !== null ? address.port : 0;
}
