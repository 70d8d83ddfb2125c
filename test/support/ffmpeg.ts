import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { isExecutable } from '../../src/derive/executable.ts';
import { type Ffmpeg, findFfmpeg } from '../../src/derive/ffmpeg.ts';
import { MINUTE } from '../../src/time.ts';

const run = promisify(execFile);

/** For `beforeAll`: a distribution may take its time. */
export const INSTALL_TIMEOUT_MS = 6 * MINUTE;

/**
 * Finds ffmpeg, or installs it from the distribution where we are root. Test files that want it at the same time wait for
 * each other.
 *
 * @throws Error naming the command to run.
 */
export async function provideFfmpeg(): Promise<Ffmpeg> {
  const signal = AbortSignal.timeout(INSTALL_TIMEOUT_MS);
  const found = await findFfmpeg({}, signal);
  if (found.ok) return found.ffmpeg;
  const needed = `ffmpeg is needed and was not found (${found.why}): run \`sudo apt-get install ffmpeg\``;
  if (process.getuid?.() !== 0 || !(await isExecutable('/usr/bin/apt-get'))) throw new Error(needed);
  process.stderr.write('installing ffmpeg from the distribution\n');
  const lock = join(tmpdir(), 'weixin-media-apt.lock');
  const aptGet = (...args: string[]): Promise<unknown> => run('flock', [lock, 'apt-get', '-qq', ...args], { signal });
  await aptGet('update').catch(() => undefined);
  await aptGet('install', '-y', '--no-install-recommends', 'ffmpeg');
  const installed = await findFfmpeg({}, signal);
  if (!installed.ok) throw new Error(needed);
  return installed.ffmpeg;
}

/** Makes a file by ffmpeg, for tests: nothing confines it. */
export async function makeByFfmpeg(path: string, ...args: string[]): Promise<string> {
  await run('ffmpeg', ['-v', 'error', '-nostdin', '-y', ...args, path]);
  return path;
}

/** What ffprobe says of a file: of its first stream and of the whole. */
export async function probe(path: string): Promise<Record<string, string | number>> {
  const entries = 'stream=codec_name,width,height,sample_rate,channels:format=format_name,duration';
  const { stdout } = await run('ffprobe', ['-v', 'error', '-show_entries', entries, '-of', 'json', path]);
  const { streams, format } = JSON.parse(stdout) as { streams: [object]; format: { duration?: string } };
  return { ...streams[0], ...format, duration: Number(format.duration) };
}

/** The bytes of a picture's first frame, three a pixel, or of a sound, 16 bits a sample at 24 kHz. */
export async function decoded(path: string, as: 'rgb24' | 's16le'): Promise<Buffer> {
  const how = as === 'rgb24' ? ['-frames:v', '1', '-pix_fmt', as, '-f', 'rawvideo'] : ['-ar', '24000', '-f', as];
  const options = { encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 } as const;
  const { stdout } = await run('ffmpeg', ['-v', 'error', '-nostdin', '-i', path, ...how, '-'], options);
  return stdout;
}

/** A folder of a test's own. */
export interface OwnFolder extends AsyncDisposable {
  readonly path: string;
  /** Writes a file into it and returns its path. */
  write(name: string, bytes: Uint8Array | string, mode?: number): Promise<string>;
  /** Makes a folder in it and returns its path. */
  makeFolder(name: string): Promise<string>;
  names(): Promise<string[]>;
}

export async function ownFolder(): Promise<OwnFolder> {
  const path = await mkdtemp(join(tmpdir(), 'weixin-media-derive-'));
  return {
    path,
    async write(name, bytes, mode = 0o600) {
      await writeFile(join(path, name), bytes, { mode });
      return join(path, name);
    },
    async makeFolder(name) {
      await mkdir(join(path, name));
      return join(path, name);
    },
    names: async () => (await readdir(path)).toSorted(),
    [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }),
  };
}

/** AMR as telephones make it, 12.2 kbit/s: whatever the bits of a frame are, they are a sound of 20 ms. */
export function amrOf(frames: number): Buffer {
  const frame = Buffer.from([0x3c, ...Array.from({ length: 31 }, (_, index) => (index * 37) & 0xff)]);
  return Buffer.concat([Buffer.from('#!AMR\n'), ...Array.from({ length: frames }, () => frame)]);
}

/** AMR of 16 kHz, 6.6 kbit/s. */
export function amrWidebandOf(frames: number): Buffer {
  const frame = Buffer.from([0x04, ...Array.from({ length: 17 }, (_, index) => (index * 37) & 0xff)]);
  return Buffer.concat([Buffer.from('#!AMR-WB\n'), ...Array.from({ length: frames }, () => frame)]);
}

/** Samples of a tone, 16 bits each at 24 kHz. */
export function toneOf(hertz: number, seconds: number): Buffer {
  const samples = Int16Array.from({ length: 24_000 * seconds }, (_, index) =>
    Math.round(8_000 * Math.sin((2 * Math.PI * hertz * index) / 24_000)),
  );
  return Buffer.from(samples.buffer);
}

/** True while there is a process of that id. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}
