import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import type { BucketFiles } from '../store/bucket-files.ts';
import type { Wanted } from './erase-wanted.ts';
import { unwrap } from './flush.ts';

export const REPORTS_PREFIX = 'verifications/';
/** A report names what was wrong; one that is larger is none of ours. */
const MAX_REPORT_BYTES = 64 * 1024 * 1024;
const ERASED = '[erased]';

/**
 * Takes the names of erased media out of the reports of verifications: each text of a report that names one becomes
 * `[erased]`. Harmless to repeat.
 *
 * @param dryRun counts only. @returns how many reports. @throws FailureError
 */
export async function eraseFromReports(
  files: BucketFiles,
  wanted: Pick<Wanted, 'isIn' | 'isKey'>,
  dryRun: boolean,
  signal: AbortSignal,
): Promise<number> {
  let count = 0;
  for await (const { key } of files.list(REPORTS_PREFIX, signal)) {
    const bytes = unwrap(await files.getBytes(key, MAX_REPORT_BYTES, signal));
    if (bytes === undefined) continue;
    const isPacked = bytes[0] === 0x1f && bytes[1] === 0x8b;
    const text = Buffer.from(isPacked ? await promisify(gunzip)(bytes) : bytes).toString();
    if (!wanted.isIn(text)) continue;
    count += 1;
    if (dryRun) continue;
    const without = Buffer.from(withoutNames(text, wanted));
    const contentType = unwrap(await files.head(key, signal))?.contentType ?? 'application/json';
    unwrap(await files.putBytes(key, isPacked ? await promisify(gzip)(without) : without, contentType, signal));
  }
  return count;
}

/** In JSON the texts that name one are replaced; in anything else its lines. */
function withoutNames(text: string, wanted: Pick<Wanted, 'isIn'>): string {
  const replaced = text.replace(/"(?:[^"\\\n]|\\.)*"/g, (quoted) => (wanted.isIn(quoted) ? `"${ERASED}"` : quoted));
  if (!wanted.isIn(replaced)) return replaced;
  return replaced
    .split('\n')
    .map((line) => (wanted.isIn(line) ? ERASED : line))
    .join('\n');
}
