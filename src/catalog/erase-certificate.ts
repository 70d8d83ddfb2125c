import { z } from 'zod';
import { FailureError, failure } from '../failure.ts';
import type { BucketFiles } from '../store/bucket-files.ts';
import { unwrap } from './flush.ts';

export const ERASURES_PREFIX = 'erasures/';
const MAX_CERTIFICATE_BYTES = 1024 * 1024;

const countsSchema = z.record(z.string(), z.number());

/**
 * What is left of an erasure: that it was done, by whom, and how much it took. No openId, no pseudonym, no media id, no key,
 * and no hash of any.
 *
 * - `open`: it goes on, or was broken off: do it again with `--continue`.
 * - `complete`: everything was looked through once more afterwards, and nothing was found.
 * - `incomplete`: something could not be removed: do it again.
 */
export const certificateSchema = z.object({
  v: z.literal(1),
  /** Random. */
  id: z.uuid(),
  appId: z.string(),
  /** Whether a person was erased by openId, or media by their ids. */
  selection: z.enum(['open-id', 'media-ids']),
  requestedAt: z.string(),
  finishedAt: z.string().nullable(),
  status: z.enum(['open', 'complete', 'incomplete']),
  by: z.string(),
  note: z.string(),
  /** How often it was begun. */
  runs: z.number(),
  /** How much was removed, in all runs that told. */
  removed: countsSchema,
  /** How much was found when everything was looked through afterwards. */
  left: countsSchema,
  /** What was looked through afterwards. */
  verified: z.array(z.string()),
  /** Folders of the bucket that are none of ours, and were not looked through. */
  notSearched: z.array(z.string()),
  /** What has become of the files that Redis keeps on its disk. */
  redisFiles: z.enum(['rewritten', 'none', 'refused', 'pending']).nullable(),
  version: z.string(),
});

export type Certificate = z.output<typeof certificateSchema>;

export function certificateKey(id: string): string {
  return `${ERASURES_PREFIX}${id}.json`;
}

/** @throws FailureError */
export async function writeCertificate(
  files: BucketFiles,
  certificate: Certificate,
  signal: AbortSignal,
): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(certificate, undefined, 2)}\n`);
  unwrap(await files.putBytes(certificateKey(certificate.id), bytes, 'application/json', signal));
}

/** Returns `undefined` when there is none. @throws FailureError also when there is something else. */
export async function readCertificate(
  files: BucketFiles,
  id: string,
  signal: AbortSignal,
): Promise<Certificate | undefined> {
  const key = certificateKey(id);
  const bytes = unwrap(await files.getBytes(key, MAX_CERTIFICATE_BYTES, signal));
  if (bytes === undefined) return undefined;
  try {
    return certificateSchema.parse(JSON.parse(Buffer.from(bytes).toString()));
  } catch {
    throw new FailureError(failure('object-conflict', { detail: `${key} is no certificate` }));
  }
}

/** Adds counts to counts. */
export function added(
  sums: Readonly<Record<string, number>>,
  more: Readonly<Record<string, number>>,
): Record<string, number> {
  const all = { ...sums };
  for (const [name, count] of Object.entries(more)) if (count > 0) all[name] = (all[name] ?? 0) + count;
  return all;
}
