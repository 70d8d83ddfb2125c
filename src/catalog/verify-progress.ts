import { z } from 'zod';
import type { BucketFiles } from '../store/bucket-files.ts';
import { unwrap } from './flush.ts';
import { sha256Hex } from './manifest.ts';
import type { VerifyScope } from './verify-compare.ts';
import { DIFFERENCES, type DifferenceWord } from './verify-judge.ts';

export const VERIFICATIONS_PREFIX = 'verifications/';
/** Differences that are kept. Beyond they are counted only. */
export const MAX_KEPT = 10_000;
const MAX_BYTES = 64 * 1024 * 1024;

const WORDS = Object.keys(DIFFERENCES) as [DifferenceWord, ...DifferenceWord[]];
const value = z.union([z.string(), z.number(), z.null()]);
const differenceSchema = z.object({
  difference: z.enum(WORDS),
  key: z.string(),
  expected: value,
  found: value,
  sealed: z.boolean(),
});
const countsSchema = z.partialRecord(z.enum(WORDS), z.int().nonnegative());
const uncheckedSchema = z.object({ key: z.string(), reason: z.string() });

/** How far a verification has got: what was found by reading, which is what takes long. */
const progressSchema = z.object({
  v: z.literal(1),
  startedAt: z.string(),
  savedAt: z.string(),
  /** Decides which objects a sample draws. */
  seed: z.string(),
  /** All objects up to this key, of those to be read, were read or are `unchecked`. */
  lastKey: z.string(),
  objects: z.int().nonnegative(),
  bytes: z.int().nonnegative(),
  differences: z.array(differenceSchema),
  counts: countsSchema,
  /** Could not be read so far. */
  unchecked: z.array(uncheckedSchema),
});

export type VerifyProgress = z.output<typeof progressSchema>;

/** What a verification has come to: evidence, kept in the bucket. */
export interface VerifyReport {
  readonly v: 1;
  readonly scope: VerifyScope;
  readonly startedAt: string;
  readonly endedAt: string;
  readonly writer: string;
  /** The last head of the chain; `null` where nothing was sealed. Kept elsewhere, it vouches for all that was sealed before. */
  readonly tip: { readonly sequence: number; readonly dt: string; readonly sha256: string } | null;
  /**
   * The last head that was found as it was: the next verification looks for it. Not the tip where that has taken the place
   * of what was vouched for before; such a break is told until it is mended.
   */
  readonly vouched: { readonly sequence: number; readonly dt: string; readonly sha256: string } | null;
  readonly manifests: { readonly heads: number; readonly lists: number; readonly erasedLines: number };
  readonly objects: { readonly listed: number; readonly rows: number; readonly sealed: number; readonly read: number };
  /** Objects that are too new for the catalog, or for a manifest. */
  readonly due: number;
  readonly bytesRead: number;
  readonly counts: Readonly<Partial<Record<DifferenceWord, number>>>;
  /** The first of them, `MAX_KEPT` at most. */
  readonly differences: readonly z.output<typeof differenceSchema>[];
}

const tipSchema = z.object({ sequence: z.int().positive(), dt: z.string(), sha256: z.string() });
const vouchedSchema = z.object({ tip: tipSchema.nullable(), vouched: tipSchema.nullish() });

export type Tip = z.output<typeof tipSchema>;

/** A name for a scope: the same command has the same one. */
export function scopeName({ sample, since, until, app }: VerifyScope): string {
  return sha256Hex(JSON.stringify([sample ?? 'all', since ?? null, until ?? null, app ?? null])).slice(0, 16);
}

export function progressKey(scope: VerifyScope): string {
  return `${VERIFICATIONS_PREFIX}${scopeName(scope)}.json`;
}

/** @param endedAt ISO-8601. */
export function reportKey(endedAt: string, scope: VerifyScope): string {
  return `${VERIFICATIONS_PREFIX}${endedAt.replaceAll(/[-:]/g, '').replace(/\.\d+/, '')}-${scopeName(scope)}.json`;
}

/** @returns `undefined` where nothing was broken off, or somebody has spoilt it. @throws FailureError */
export async function readProgress(
  files: BucketFiles,
  scope: VerifyScope,
  signal: AbortSignal,
): Promise<VerifyProgress | undefined> {
  const bytes = unwrap(await files.getBytes(progressKey(scope), MAX_BYTES, signal));
  return bytes === undefined ? undefined : progressSchema.safeParse(jsonOf(bytes)).data;
}

/** @throws FailureError */
export async function writeProgress(
  files: BucketFiles,
  scope: VerifyScope,
  progress: VerifyProgress,
  signal: AbortSignal,
): Promise<void> {
  const bytes = Buffer.from(`${JSON.stringify(progress)}\n`);
  unwrap(await files.putBytes(progressKey(scope), bytes, 'application/json', signal));
}

/** Writes the report in the place of the progress, and returns its key. @throws FailureError */
export async function writeReport(files: BucketFiles, report: VerifyReport, signal: AbortSignal): Promise<string> {
  const key = reportKey(report.endedAt, report.scope);
  const bytes = Buffer.from(`${JSON.stringify(report, null, 2)}\n`);
  unwrap(await files.putBytes(key, bytes, 'application/json', signal));
  unwrap(await files.remove(progressKey(report.scope), signal));
  return key;
}

/** The head that the last report vouches for, and the key of the report. @throws FailureError */
export async function lastVouched(
  files: BucketFiles,
  signal: AbortSignal,
): Promise<{ readonly key: string; readonly tip: Tip } | undefined> {
  let last: string | undefined;
  for await (const { key } of files.list(VERIFICATIONS_PREFIX, signal))
    if (/\/\d{8}T\d{6}Z-[0-9a-f]+\.json$/.test(key)) last = key;
  if (last === undefined) return undefined;
  const bytes = unwrap(await files.getBytes(last, MAX_BYTES, signal));
  const told = bytes === undefined ? undefined : vouchedSchema.safeParse(jsonOf(bytes)).data;
  const tip = told?.vouched ?? told?.tip;
  return tip ? { key: last, tip } : undefined;
}

function jsonOf(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString());
  } catch {
    return undefined;
  }
}
