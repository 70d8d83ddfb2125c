import { createHash } from 'node:crypto';
import { FailureError, type Result, succeed } from '../failure.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import type { ReadObject } from './verify-judge.ts';

/** Waits until so many bytes more may be read. */
export type BytePace = (bytes: number, signal: AbortSignal) => Promise<void>;

/** Reads an object to its end and tells what it is; `undefined` when there is none. Holds one chunk. */
export async function readBack(
  files: Pick<BucketFiles, 'open'>,
  key: string,
  pace: BytePace,
  signal: AbortSignal,
): Promise<Result<ReadObject | undefined>> {
  const opened = await files.open(key, signal);
  if (!opened.ok || opened.value === undefined) return opened as Result<undefined>;
  using object = opened.value;
  const hash = createHash('sha256');
  let sizeBytes = 0;
  try {
    for await (const chunk of object.chunks) {
      hash.update(chunk);
      sizeBytes += chunk.byteLength;
      await pace(chunk.byteLength, signal);
    }
  } catch (error) {
    signal.throwIfAborted();
    if (!(error instanceof FailureError)) throw error;
    return { ok: false, failure: error.failure };
  }
  return succeed({ sizeBytes, sha256: hash.digest('hex'), metadata: object.facts.metadata });
}
