import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { createGunzip, createGzip } from 'node:zlib';
import type { BucketFiles } from '../store/bucket-files.ts';
import type { Wanted } from './erase-wanted.ts';
import { unwrap } from './flush.ts';

export const MANIFESTS_PREFIX = 'manifests/';
const LIST = /^manifests\/dt=[^/]+\/[^/]+-objects\.ndjson\.gz$/;

/** True for the list of objects of a manifest. */
export function isManifestList(key: string): boolean {
  return LIST.test(key);
}

export interface ErasedLines {
  lines: number;
  lists: number;
  /** Keys of what is no gzip: none of ours, whatever it is called. */
  readonly unreadable: string[];
}

/**
 * Replaces the lines of erased objects in the manifests by `{"erased": "<SHA-256 of the line>"}`. The hash of a list is made
 * of the hashes of its lines, so it stays true, and the chain of manifests with it. Harmless to repeat.
 *
 * @param dryRun counts only. @throws FailureError
 */
export async function eraseManifestLines(
  { files, folder }: { readonly files: BucketFiles; readonly folder: string },
  wanted: Pick<Wanted, 'isKey'>,
  dryRun: boolean,
  signal: AbortSignal,
): Promise<ErasedLines> {
  const counts: ErasedLines = { lines: 0, lists: 0, unreadable: [] };
  const work = await mkdtemp(join(folder, 'erase-manifests-'));
  const [path, without] = [join(work, 'list.gz'), join(work, 'without.gz')];
  try {
    for await (const { key } of files.list(MANIFESTS_PREFIX, signal)) {
      if (!isManifestList(key) || !unwrap(await files.getFile(key, path, signal))) continue;
      const lines = await copyWithout(path, without, wanted).catch((error: unknown) => {
        if (!isSpoilt(error)) throw error;
        counts.unreadable.push(key);
        return 0;
      });
      if (lines === 0) continue;
      counts.lines += lines;
      counts.lists += 1;
      if (dryRun) continue;
      const contentType = unwrap(await files.head(key, signal))?.contentType ?? 'application/gzip';
      unwrap(await files.putFile(key, without, contentType, signal));
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return counts;
}

/** Copies a list, and returns how many lines were replaced. Memory does not grow with its length. */
async function copyWithout(path: string, target: string, wanted: Pick<Wanted, 'isKey'>): Promise<number> {
  let count = 0;
  async function* without(chunks: AsyncIterable<Uint8Array>): AsyncIterable<string> {
    for await (const line of linesOf(chunks)) {
      const isErased = wanted.isKey(keyOf(line));
      count += isErased ? 1 : 0;
      yield `${isErased ? erasedLine(line) : line}\n`;
    }
  }
  await pipeline(createReadStream(path), createGunzip(), without, createGzip(), createWriteStream(target));
  return count;
}

/** Lines without their ends, as NDJSON has them. */
async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncIterable<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of chunks) {
    const pieces = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = pieces.pop() ?? '';
    yield* pieces;
  }
  rest += decoder.decode();
  if (rest !== '') yield rest;
}

/** What stands in a list in the place of a line. @param line without its end. */
export function erasedLine(line: string): string {
  return JSON.stringify({ erased: createHash('sha256').update(line).digest('hex') });
}

function keyOf(line: string): string {
  try {
    const { key } = JSON.parse(line) as { key?: unknown };
    return typeof key === 'string' ? key : '';
  } catch {
    return '';
  }
}

function isSpoilt(error: unknown): boolean {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('Z_');
}
