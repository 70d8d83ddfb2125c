import { createReadStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createGunzip } from 'node:zlib';
import type { BucketFiles } from '../store/bucket-files.ts';
import { unwrap } from './flush.ts';
import { ListDigest, type ManifestHead, parseLine, type SealedObject } from './manifest.ts';
import { localPath } from './parquet.ts';

/** What a list is, compared with what its head says. */
export interface ListCheck {
  /** Objects and erased lines. */
  readonly objects: number;
  readonly erased: number;
  /** Of the objects that are not erased. */
  readonly bytes: number;
  /** Lines that are neither. */
  readonly unreadable: number;
  /** `undefined` where there is no list, or one that can't be read to its end. */
  readonly sha256: string | undefined;
  /** True when it is the very list that was sealed, but for erased lines. */
  readonly isIntact: boolean;
}

/**
 * Reads the list of a manifest and compares it with the head. It goes through this machine's disk, so that a slow reader
 * keeps no connection; memory does not grow with its length.
 *
 * @param folder for the file, which is removed.
 * @param take is given each object that is not erased, whether or not the list is intact.
 * @throws FailureError
 */
export async function readManifest(
  files: BucketFiles,
  folder: string,
  { list, objects, bytes }: Pick<ManifestHead, 'list' | 'objects' | 'bytes'>,
  take: (object: SealedObject) => Promise<void> | void,
  signal: AbortSignal,
): Promise<ListCheck> {
  const path = localPath(folder, list.key);
  const found = { objects: 0, erased: 0, bytes: 0, unreadable: 0 };
  const isThere = unwrap(await files.getFile(list.key, path, signal));
  if (!isThere) return { ...found, sha256: undefined, isIntact: false };
  const digest = new ListDigest();
  try {
    for await (const text of linesOf(path)) {
      signal.throwIfAborted();
      const line = parseLine(text);
      digest.add(text, line);
      found.objects += 1;
      if (line === undefined) found.unreadable += 1;
      else if ('erased' in line) found.erased += 1;
      else {
        found.bytes += line.size;
        await take(line);
      }
    }
  } catch (error) {
    if (!isSpoilt(error)) throw error;
    return { ...found, sha256: undefined, isIntact: false };
  } finally {
    await rm(path, { force: true });
  }
  const sha256 = digest.digest();
  const isWhole = found.objects === objects && (found.erased > 0 || found.bytes === bytes);
  return { ...found, sha256, isIntact: sha256 === list.sha256 && isWhole };
}

/** The lines of a gzipped file. What it throws for one that is spoilt is known by `isSpoilt`. */
async function* linesOf(path: string): AsyncIterable<string> {
  const source = createReadStream(path);
  const plain = createGunzip();
  source.on('error', (error) => plain.destroy(error));
  source.pipe(plain);
  try {
    let rest = '';
    const decoder = new TextDecoder();
    for await (const chunk of plain as AsyncIterable<Uint8Array>) {
      const pieces = (rest + decoder.decode(chunk, { stream: true })).split('\n');
      rest = pieces.pop() ?? '';
      yield* pieces;
    }
    if (rest !== '') yield rest;
  } finally {
    source.destroy();
    plain.destroy();
  }
}

function isSpoilt(error: unknown): boolean {
  return error instanceof Error && 'code' in error && /^Z_/.test(String(error.code));
}
