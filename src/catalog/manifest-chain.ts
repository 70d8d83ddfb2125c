import type { BucketFiles } from '../store/bucket-files.ts';
import { unwrap } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import {
  headKey,
  MANIFESTS_PREFIX,
  MAX_HEAD_BYTES,
  type ManifestHead,
  type ManifestPlace,
  parseHead,
  placeOfHead,
  sha256Hex,
} from './manifest.ts';

const READS_AT_ONCE = 16;

/** A head in the bucket. */
export interface ChainLink extends ManifestPlace {
  readonly key: string;
  /** Of its bytes. */
  readonly sha256: string;
  /** Absent where the bytes are no head. */
  readonly head?: ManifestHead;
}

/** Where the chain does not hold. */
export interface ChainBreak {
  /** Of the head that is wrong, or of the one that should be there. */
  readonly key: string;
  readonly expected: string;
  readonly found: string;
}

export interface Chain {
  /** By sequence. */
  readonly links: readonly ChainLink[];
  readonly breaks: readonly ChainBreak[];
}

/** The places of all heads, by sequence. @throws FailureError */
export async function listHeads(files: BucketFiles, signal: AbortSignal): Promise<ManifestPlace[]> {
  const places: ManifestPlace[] = [];
  for await (const { key } of files.list(MANIFESTS_PREFIX, signal)) {
    const place = placeOfHead(key);
    if (place !== undefined) places.push(place);
  }
  return places.toSorted((a, b) => a.sequence - b.sequence);
}

/** Reads a head; `undefined` when it is not there. @throws FailureError */
export async function readLink(
  files: BucketFiles,
  place: ManifestPlace,
  signal: AbortSignal,
): Promise<ChainLink | undefined> {
  const key = headKey(place);
  const bytes = unwrap(await files.getBytes(key, MAX_HEAD_BYTES, signal));
  if (bytes === undefined) return undefined;
  const head = parseHead(bytes);
  return { ...place, key, sha256: sha256Hex(bytes), ...(head === undefined ? {} : { head }) };
}

/**
 * Reads every head and looks whether each is the one that the next says it is. Some 600 bytes of memory a head.
 *
 * @throws FailureError
 */
export async function readChain(files: BucketFiles, signal: AbortSignal): Promise<Chain> {
  const places = await listHeads(files, signal);
  const links: ChainLink[] = [];
  await inParallel(READS_AT_ONCE, places, async (place) => {
    const link = await readLink(files, place, signal);
    if (link !== undefined) links.push(link);
  });
  links.sort((a, b) => a.sequence - b.sequence);
  return { links, breaks: chainBreaks(links) };
}

/** @param links by sequence. */
export function chainBreaks(links: readonly ChainLink[]): ChainBreak[] {
  const breaks: ChainBreak[] = [];
  let before: ChainLink | undefined;
  for (const link of links) {
    const { key, sequence, dt, head } = link;
    const due = (before?.sequence ?? 0) + 1;
    if (sequence < due) breaks.push({ key, expected: `one head ${sequence}`, found: 'another one' });
    // The key of what is missing is told by what follows it.
    for (let missing = due; missing < sequence; missing += 1) {
      const previous = missing === sequence - 1 ? head?.previous : undefined;
      const lost = previous ? headKey(previous) : `manifests/…/${String(missing).padStart(12, '0')}.json`;
      breaks.push({ key: lost, expected: previous?.sha256 ?? `head ${missing}`, found: 'none' });
    }
    if (head === undefined) {
      breaks.push({ key, expected: 'a head of a manifest', found: 'something else' });
    } else {
      if (head.sequence !== sequence || head.dt !== dt)
        breaks.push({ key, expected: `head ${sequence} of ${dt}`, found: `head ${head.sequence} of ${head.dt}` });
      if (sequence === due) {
        const told = head.previous === null ? 'none' : `${head.previous.sequence} ${head.previous.sha256}`;
        const there = before === undefined ? 'none' : `${before.sequence} ${before.sha256}`;
        // Whichever of the two was changed: it is the one before that is not what it was said to be.
        if (told !== there) breaks.push({ key: before?.key ?? key, expected: told, found: there });
      }
    }
    before = link;
  }
  return breaks;
}
