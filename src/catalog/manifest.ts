import { createHash, type Hash } from 'node:crypto';
import { z } from 'zod';
import { VERSION } from '../version.ts';

/**
 * What a manifest is made of: a list of the objects of a day, and a head that names the list and its hash.
 *
 * Heads are chained by their sequence, over all days: each holds the SHA-256 of the bytes of the one before. Whoever
 * knows one head can tell whether anything that was sealed before it has been changed.
 *
 * Both are canonical: keys in the order that stands here, no blanks, a newline at each end. So what `sha256sum` says of
 * them is what stands in them.
 *
 * @module
 */

export const MANIFESTS_PREFIX = 'manifests/';
export const LIST_TYPE = 'application/gzip';
export const HEAD_TYPE = 'application/json';
/** Larger is no head of ours. */
export const MAX_HEAD_BYTES = 64 * 1024;

const SHA256 = /^[0-9a-f]{64}$/;
const sha256Schema = z.string().regex(SHA256);
const count = z.int().nonnegative();
const dtSchema = z.string().regex(/^\d{4}-\d{2}-\d{2}$/);

const headSchema = z.object({
  v: z.literal(1),
  /** From 1, without a gap. */
  sequence: z.int().positive(),
  /** The day, `YYYY-MM-DD` in UTC. */
  dt: dtSchema,
  /** From 1. A later one of the same day lists what has been added since. */
  revision: z.int().positive(),
  /** In the list. */
  objects: count,
  bytes: count,
  /** Objects of the day that have no row in the catalog and so are in no list: not ours. */
  unlisted: count,
  /** Rows of the day whose object is not in the bucket. */
  missing: count,
  /** `sha256` is that of the hashes of the lines: see `ListDigest`. */
  list: z.object({ key: z.string(), sha256: sha256Schema }),
  /** The head before; `null` for the first. */
  previous: z.object({ sequence: z.int().positive(), dt: dtSchema, sha256: sha256Schema }).nullable(),
  closedAt: z.string(),
  /** The program that wrote it. */
  writer: z.string(),
});

export type ManifestHead = z.output<typeof headSchema>;

export const WRITER = `weixin-media-archiver/${VERSION}`;

/** One object, as the list has it. */
export interface SealedObject {
  readonly key: string;
  readonly size: number;
  /** 64 lower-case hexadecimal digits. */
  readonly sha256: string;
}

/** A line of a list: an object, or the SHA-256 of the line that stood there before the object was erased. */
export type ManifestLine = SealedObject | { readonly erased: string };

export interface ManifestPlace {
  readonly dt: string;
  readonly sequence: number;
}

export function headKey({ dt, sequence }: ManifestPlace): string {
  return `${MANIFESTS_PREFIX}dt=${dt}/${padded(sequence)}.json`;
}

export function listKey({ dt, sequence }: ManifestPlace): string {
  return `${MANIFESTS_PREFIX}dt=${dt}/${padded(sequence)}-objects.ndjson.gz`;
}

function padded(sequence: number): string {
  return String(sequence).padStart(12, '0');
}

/** Takes the key of a head apart; `undefined` for any other key. */
export function placeOfHead(key: string): ManifestPlace | undefined {
  const [, dt, sequence] = /^manifests\/dt=(\d{4}-\d{2}-\d{2})\/(\d{12})\.json$/.exec(key) ?? [];
  return dt === undefined || sequence === undefined ? undefined : { dt, sequence: Number(sequence) };
}

/** The bytes of a head, with its newline. */
export function headText(head: ManifestHead): string {
  const { v, sequence, dt, revision, objects, bytes, unlisted, missing, list, previous, closedAt, writer } = head;
  const before = previous === null ? null : { sequence: previous.sequence, dt: previous.dt, sha256: previous.sha256 };
  return `${JSON.stringify({
    v,
    sequence,
    dt,
    revision,
    objects,
    bytes,
    unlisted,
    missing,
    list: { key: list.key, sha256: list.sha256 },
    previous: before,
    closedAt,
    writer,
  })}\n`;
}

/** Reads a head; `undefined` for what is none of ours. */
export function parseHead(bytes: Uint8Array): ManifestHead | undefined {
  return headSchema.safeParse(jsonOf(Buffer.from(bytes).toString())).data;
}

/** A line of a list, without its newline. */
export function lineText({ key, size, sha256 }: SealedObject): string {
  return JSON.stringify({ key, size, sha256 });
}

/** Reads a line; `undefined` for what is none of ours. */
export function parseLine(text: string): ManifestLine | undefined {
  const line = jsonOf(text);
  if (typeof line !== 'object' || line === null) return undefined;
  const { key, size, sha256, erased } = line as Record<string, unknown>;
  if (typeof erased === 'string' && SHA256.test(erased)) return { erased };
  const isObject = typeof key === 'string' && Number.isSafeInteger(size) && typeof sha256 === 'string';
  return isObject ? { key, size: size as number, sha256 } : undefined;
}

export function sha256Hex(bytes: Uint8Array | string): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/**
 * The hash of a list: SHA-256 over the SHA-256 of each line, as hexadecimal digits, each with a newline. An erased line
 * tells the hash that it had, so the hash of the list stays what it was.
 */
export class ListDigest {
  readonly #hash: Hash = createHash('sha256');

  /** @param text the line as it stands in the list, without its newline. */
  add(text: string, line: ManifestLine | undefined): void {
    const hash = line !== undefined && 'erased' in line ? line.erased : sha256Hex(text);
    this.#hash.update(`${hash}\n`);
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
