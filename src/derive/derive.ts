import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { mkdtemp, open, rename, rm, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { SNIFF_BYTES, sniffType } from '../media/sniff.ts';
import { MINUTE } from '../time.ts';
import type { DeriveFailure } from './derive-failure.ts';
import { type Ffmpeg, runFfmpeg } from './ffmpeg.ts';
import { RECIPES, type Recipe, type RecipeName, type Source, sourceOfType } from './recipes.ts';
import type { ToolEnd } from './run-tool.ts';
import { decodeSilk, SILK_TOOL } from './silk.ts';

/** How long a tool may work on one file. On a quiet machine it takes a second at most. */
const DEFAULT_TIMEOUT_MS = MINUTE;

/** In characters. */
const MAX_DETAIL_LENGTH = 1_000;

export interface DeriveInput {
  /** A whole media on disk. It is read, and never written. */
  readonly inputPath: string;
  /** What `sniffType` found in its bytes. */
  readonly mediaType: string | undefined;
  /** Takes the files that are made, and while it works a folder beside them. */
  readonly folder: string;
}

export interface DeriveTools {
  /** Absent where there is none. @see findFfmpeg */
  readonly ffmpeg?: Ffmpeg;
  /** How long each tool may take. Default: one minute. */
  readonly timeoutMs?: number;
}

/** A file that was made of a media, and how. */
export interface DerivedFile {
  readonly name: string;
  readonly path: string;
  readonly contentType: string;
  readonly recipe: RecipeName;
  /** What made it, in order: `ffmpeg 5.1.9`, or `silk-wasm 3.7.1 + ffmpeg 5.1.9`. */
  readonly tool: string;
  readonly sizeBytes: number;
  /** 64 lower-case hexadecimal digits. */
  readonly sha256: string;
}

export type Derived =
  | { readonly ok: true; readonly files: readonly DerivedFile[] }
  | { readonly ok: false; readonly failure: DeriveFailure };

/**
 * Makes of a media what its type has recipes for. All of it, or nothing: a file has its name in `folder` only when it is
 * whole and of its type.
 *
 * Again, the same version of the tools makes the same bytes and replaces what is there. A crash leaves a folder
 * `derive-…` in `folder`, and no tool running where `setpriv` is installed.
 *
 * @throws the signal's reason when it aborts: then no tool runs and no file of it is left. What else it throws is an error
 * of this machine: no such input, a full disk, no more processes.
 */
export async function deriveFile(input: DeriveInput, tools: DeriveTools, signal: AbortSignal): Promise<Derived> {
  signal.throwIfAborted();
  const source = sourceOfType(input.mediaType);
  if (source === undefined) return failed('no-recipe', `nothing is made of ${input.mediaType ?? 'an unknown type'}`);
  const { ffmpeg } = tools;
  if (ffmpeg === undefined) return failed('tool-missing', 'no ffmpeg');
  const folder = await mkdtemp(join(resolve(input.folder), 'derive-'));
  try {
    const files: DerivedFile[] = [];
    for (const recipe of source.recipes) {
      const made = await make({ ...input, recipe, source, folder }, { ...tools, ffmpeg }, signal);
      if (!made.ok) return made;
      files.push(...made.files);
    }
    signal.throwIfAborted();
    return { ok: true, files: await Promise.all(files.map((file) => moveTo(resolve(input.folder), file))) };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

interface Make extends DeriveInput {
  readonly recipe: RecipeName;
  readonly source: Source;
}

async function make(
  { inputPath, recipe: recipeName, source, folder }: Make,
  { ffmpeg, timeoutMs = DEFAULT_TIMEOUT_MS }: DeriveTools & { readonly ffmpeg: Ffmpeg },
  signal: AbortSignal,
): Promise<Derived> {
  const recipe: Recipe = RECIPES[recipeName];
  const { size } = await stat(inputPath);
  if (size > recipe.maxInputBytes) return failed('too-large', `${size} bytes, of at most ${recipe.maxInputBytes}`);

  let readable = inputPath;
  if (recipe.decoder === 'silk-wasm') {
    readable = join(folder, 'voice.pcm');
    const run = { inputPath, outputPath: readable, folder, timeoutMs };
    const end = await decodeSilk(run, ffmpeg.confinement, signal);
    const failure = end.end === 'refused' ? failed(end.code, end.said) : failureOf(end);
    if (failure !== undefined) return failure;
  }

  const path = join(folder, recipe.name);
  const { output, maxOutputBytes } = recipe;
  const run = { inputPath: readable, source, output, outputPath: path, maxOutputBytes, folder, timeoutMs };
  const failure = failureOf(await runFfmpeg(ffmpeg, run, signal));
  if (failure !== undefined) return failure;
  if (!(await isExistent(path))) return failed('tool-failed', 'nothing came out');
  const { sizeBytes, sha256 } = await digestOf(path);
  if (sizeBytes >= maxOutputBytes) return failed('too-large', `more than ${maxOutputBytes} bytes came out`);
  const type = await typeOf(path);
  if (type !== recipe.contentType) return failed('tool-failed', `what came out is ${type ?? 'of no known type'}`);
  const tool = [...(recipe.decoder === undefined ? [] : [SILK_TOOL]), `ffmpeg ${ffmpeg.version}`].join(' + ');
  const { name, contentType } = recipe;
  return { ok: true, files: [{ name, path, contentType, recipe: recipeName, tool, sizeBytes, sha256 }] };
}

/** What `nice` and its like end with when the program they were to run is not there. */
const NOT_FOUND = 127;

function failureOf(end: ToolEnd): Derived | undefined {
  switch (end.end) {
    case 'exited':
      if (end.code === 0) return undefined;
      return failed(end.code === NOT_FOUND ? 'tool-missing' : 'tool-failed', end.said || `it ended with ${end.code}`);
    case 'killed':
      // By the limit of the size of files; that of processor time is for when nobody waits any more.
      return failed(end.signal === 'SIGXFSZ' ? 'too-large' : 'tool-failed', `${end.signal} ${end.said}`);
    case 'too-slow':
      return failed('too-slow', end.said);
    case 'not-started':
      return failed('tool-missing', end.said);
    default:
      return end satisfies never;
  }
}

function failed(code: DeriveFailure['code'], detail: string): Derived {
  return { ok: false, failure: { code, detail: detail.slice(-MAX_DETAIL_LENGTH) } };
}

async function isExistent(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function digestOf(path: string): Promise<Pick<DerivedFile, 'sizeBytes' | 'sha256'>> {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  for await (const chunk of createReadStream(path) as AsyncIterable<Buffer>) {
    hash.update(chunk);
    sizeBytes += chunk.byteLength;
  }
  return { sizeBytes, sha256: hash.digest('hex') };
}

async function typeOf(path: string): Promise<string | undefined> {
  await using file = await open(path);
  const { buffer, bytesRead } = await file.read(Buffer.alloc(SNIFF_BYTES), 0, SNIFF_BYTES, 0);
  return (await sniffType(buffer.subarray(0, bytesRead)))?.mime;
}

async function moveTo(folder: string, file: DerivedFile): Promise<DerivedFile> {
  const path = join(folder, file.name);
  await rename(file.path, path);
  return { ...file, path };
}
