import { createHash } from 'node:crypto';
import type { Digest } from '../store/archive-store.ts';
import { tap } from '../tap.ts';

/** Bytes on their way, and what they have been so far. */
export interface DigestedStream {
  /** Read once. */
  readonly chunks: AsyncIterable<Uint8Array>;
  /** What has passed. Final, once `chunks` has ended. */
  readonly digest: () => Digest;
}

/** Counts and hashes bytes as they pass, so that they are read once. */
export function digestStream(source: AsyncIterable<Uint8Array>): DigestedStream {
  const hash = createHash('sha256');
  let sizeBytes = 0;
  let sha256: string | undefined;
  const chunks = tap(source, (chunk) => {
    hash.update(chunk);
    sizeBytes += chunk.byteLength;
  });

  return {
    chunks,
    digest: () => {
      sha256 ??= hash.digest('hex');
      return { sizeBytes, sha256 };
    },
  };
}
