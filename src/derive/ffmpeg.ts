import { isAbsolute, join, resolve } from 'node:path';
import { SECOND } from '../time.ts';
import { type Confinement, confined, findConfinement } from './confinement.ts';
import { foldersOf, isExecutable } from './executable.ts';
import type { Source } from './recipes.ts';
import { runTool, type ToolEnd } from './run-tool.ts';

const MIB = 1024 * 1024;

/** Decoding 50 megapixels with transparency takes 200 MB, twice where it is filtered. */
const MAX_MEMORY_BYTES = 1024 * MIB;
/** ffmpeg's own limit of one block, which holds where nothing else limits memory. */
const MAX_BLOCK_BYTES = 512 * MIB;

const VERSION_TIMEOUT_MS = 10 * SECOND;
/** The version is told through pipes, not files. */
const VERSION_LIMITS = { memoryBytes: MAX_MEMORY_BYTES, fileBytes: MIB, cpuSeconds: 10 };

/** The ffmpeg of this machine, and what confines it. */
export interface Ffmpeg {
  /** Absolute. */
  readonly path: string;
  /** As `5.1.9`, or what a build that has no such number says. */
  readonly version: string;
  readonly confinement: Confinement;
}

export type FoundFfmpeg = { readonly ok: true; readonly ffmpeg: Ffmpeg } | { readonly ok: false; readonly why: string };

export interface FindFfmpegOptions {
  /** ffmpeg itself, by its absolute path: no other is looked for. */
  readonly path?: string;
  /** Folders that are looked through for ffmpeg, and for what confines it, as in PATH. Default: PATH. */
  readonly searchPath?: string;
}

/**
 * Finds ffmpeg and asks it for its version. What is there but does not answer as ffmpeg within ten seconds is not it.
 *
 * @throws the signal's reason when it aborts.
 */
export async function findFfmpeg(options: FindFfmpegOptions, signal: AbortSignal): Promise<FoundFfmpeg> {
  // biome-ignore lint/style/noProcessEnv: the search path of this machine, not a setting of ours
  const folders = foldersOf(options.searchPath ?? process.env['PATH'] ?? '');
  const path = options.path ?? (await firstExecutable(folders.map((folder) => join(folder, 'ffmpeg'))));
  if (path === undefined) return { ok: false, why: 'no ffmpeg in PATH' };
  if (!isAbsolute(path)) return { ok: false, why: `${path} is no absolute path` };
  const version = await versionOf(path, {}, signal);
  if (version === undefined) return { ok: false, why: `${path} does not answer as ffmpeg` };
  const works = async (confinement: Confinement): Promise<boolean> =>
    (await versionOf(path, confinement, signal)) !== undefined;
  return { ok: true, ffmpeg: { path, version, confinement: await findConfinement(folders, works) } };
}

async function firstExecutable(paths: readonly string[]): Promise<string | undefined> {
  for (const path of paths) if (await isExecutable(path)) return path;
  return undefined;
}

async function versionOf(path: string, confinement: Confinement, signal: AbortSignal): Promise<string | undefined> {
  const command = confined(confinement, [path, '-version'], VERSION_LIMITS);
  const end = await runTool({ command, folder: '/', timeoutMs: VERSION_TIMEOUT_MS }, signal);
  return end.end === 'exited' && end.code === 0 ? parseFfmpegVersion(end.said) : undefined;
}

/** Distributions put their own revision behind the version, as in `5.1.9-0+deb12u1`; it is left out. */
export function parseFfmpegVersion(said: string): string | undefined {
  const version = /(?:^| )ffmpeg version (\S{1,64}) /.exec(said)?.[1];
  return /^n?(\d+(?:\.\d+)+)/.exec(version ?? '')?.[1] ?? version;
}

/** One file that ffmpeg is to make of another. */
export interface FfmpegRun {
  readonly inputPath: string;
  readonly source: Pick<Source, 'demuxer' | 'decoders' | 'input'>;
  /** Arguments for the output. @see Recipe */
  readonly output: readonly string[];
  /** Must not be there yet. What is there after a run that did not end well is to be thrown away. */
  readonly outputPath: string;
  /** It stops writing at or shortly after this size, and says nothing of it. */
  readonly maxOutputBytes: number;
  /** An absolute folder of our own to run in. */
  readonly folder: string;
  readonly timeoutMs: number;
}

/** Runs ffmpeg on a file that may have been made to harm us. @throws the signal's reason when it aborts. */
export async function runFfmpeg(ffmpeg: Ffmpeg, run: FfmpegRun, signal: AbortSignal): Promise<ToolEnd> {
  const command = confined(ffmpeg.confinement, [ffmpeg.path, ...ffmpegArguments(run)], {
    memoryBytes: MAX_MEMORY_BYTES,
    // Beyond what it stops at by itself: the last packet may reach over.
    fileBytes: run.maxOutputBytes + MIB,
    cpuSeconds: Math.ceil(run.timeoutMs / SECOND) + 1,
  });
  return runTool({ command, folder: run.folder, timeoutMs: run.timeoutMs }, signal);
}

/**
 * A playlist opens files and addresses that its author chose, whatever the name of the file that holds it. So the one
 * container that the first bytes told is set, of which none opens others; only the decoders of that type are let near the
 * bytes; and of all protocols only files remain (not even pipes, which nothing here needs).
 *
 * @see https://ffmpeg.org/ffmpeg-protocols.html, protocol_whitelist
 */
export function ffmpegArguments({ inputPath, source, output, outputPath, maxOutputBytes }: FfmpegRun): string[] {
  const { demuxer, decoders, input = [] } = source;
  return [
    ...['-hide_banner', '-nostdin', '-nostats', '-loglevel', 'error'],
    ...['-max_alloc', String(MAX_BLOCK_BYTES), '-filter_threads', '1', '-filter_complex_threads', '1'],
    // A header without anything behind it is no voice.
    ...['-abort_on', 'empty_output+empty_output_stream'],
    ...['-protocol_whitelist', 'file', '-f', demuxer, '-codec_whitelist', decoders.join(','), '-threads', '1'],
    ...input,
    ...['-i', `file:${resolve(inputPath)}`],
    // Where a picture was taken is nobody's business.
    ...['-map_metadata', '-1', '-threads', '1'],
    ...output,
    ...['-fs', String(maxOutputBytes), `file:${resolve(outputPath)}`],
  ];
}
