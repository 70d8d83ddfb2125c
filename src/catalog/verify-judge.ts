/**
 * What can be found to differ. Each word says what was changed, as far as the three witnesses (the object, its row, its
 * line in a manifest) tell.
 */
export const DIFFERENCES = {
  missing: 'The object is not in the bucket.',
  size: 'The object has another length than what was archived.',
  sha256: 'The object holds other bytes than what was archived.',
  metadata:
    'The object says of itself that it is of another app or media, or has another hash, than its row: in a rebuild of the catalog the row would be lost.',
  'catalog-altered':
    "The row has another length or hash than what was sealed, or than the object and all that is known of it; or it is there twice; or a file of rows can't be read.",
  uncatalogued: 'The object has no row.',
  unsealed: 'The object belongs to a day that is closed, and no manifest has it.',
  'manifest-altered': 'The list of a manifest is not the one that was sealed.',
  'chain-broken': 'A manifest is missing, or is not the one that the next one names.',
} as const;

export type DifferenceWord = keyof typeof DIFFERENCES;

export interface Difference {
  readonly difference: DifferenceWord;
  readonly key: string;
  readonly expected: string | number | null;
  readonly found: string | number | null;
  /** True when the object, or what is said of it, was in a manifest whose list is the one that was sealed. */
  readonly sealed: boolean;
}

/** What is said of an object. */
export interface Claim {
  readonly sizeBytes: number;
  readonly sha256: string;
}

/** What is known of one key before its bytes are read. */
export interface Witnesses {
  readonly key: string;
  /** What the listing says; absent where there is no object. */
  readonly listed?: { readonly sizeBytes: number; readonly etag?: string; readonly lastModified: number };
  readonly row?: Claim & { readonly etag?: string; readonly appId: string; readonly mediaId: string };
  /** `isIntact` is false for a line in a list that is not the one that was sealed. */
  readonly sealed?: Claim & { readonly isIntact: boolean };
}

/** What an object was when it was read to its end. */
export interface ReadObject extends Claim {
  readonly metadata: Readonly<Record<string, string>>;
}

/** What a difference is judged by, beside the witnesses. */
export interface DayState {
  /** Days before this one are closed; empty when none is. */
  readonly closeNext: string;
  /** Closed days that wait to be sealed again. */
  readonly changedDays: ReadonlySet<string>;
  /** An object written after this moment may still be on its way into the catalog. Unix time in milliseconds. */
  readonly settledBefore: number;
}

/** `due`: what has come so lately that catalog and manifest need not know it yet. */
export type Standing = 'settled' | 'due';

/** Whether the catalog must know an object by now, and a manifest. */
export function standingOf({ key, listed }: Witnesses, { closeNext, changedDays, settledBefore }: DayState): Standing {
  const [, dt] = /\/dt=(\d{4}-\d{2}-\d{2})\//.exec(key) ?? [];
  const isOpen = dt !== undefined && (dt >= closeNext || changedDays.has(dt));
  return isOpen || (listed !== undefined && listed.lastModified >= settledBefore) ? 'due' : 'settled';
}

/** Finds what can be seen without reading the object. */
export function judgeUnread(witnesses: Witnesses, days: DayState): Difference[] {
  const { key, listed, row, sealed } = witnesses;
  const differs = differing(key, sealed?.isIntact === true);
  if (listed === undefined) return [differs('missing', trusted(witnesses)?.sha256 ?? null, null)];
  const isSettled = standingOf(witnesses, days) === 'settled';
  if (row === undefined) {
    const isDue = !isSettled && sealed === undefined;
    return isDue ? [] : [differs('uncatalogued', sealed?.sha256 ?? null, listed.sizeBytes)];
  }
  return sealed === undefined && isSettled ? [differs('unsealed', row.sha256, null)] : [];
}

/** Finds what can be seen once the object was read, beyond `judgeUnread`. */
export function judgeRead({ key, listed, row, sealed }: Witnesses, read: ReadObject): Difference[] {
  const isIntact = sealed?.isIntact === true;
  const differs = differing(key, isIntact);
  const other = (claim: Claim): Difference =>
    claim.sizeBytes === read.sizeBytes
      ? differs('sha256', claim.sha256, read.sha256)
      : differs('size', claim.sizeBytes, read.sizeBytes);
  const altered = (word: 'catalog-altered' | 'manifest-altered', right: Claim, wrong: Claim): Difference =>
    right.sha256 === wrong.sha256
      ? differs(word, right.sizeBytes, wrong.sizeBytes)
      : differs(word, right.sha256, wrong.sha256);
  const ofMetadata =
    row === undefined ? [] : judgeMetadata(row, read).map(([said, told]) => differs('metadata', said, told));

  if (row !== undefined && sealed !== undefined && !isSame(row, sealed)) {
    if (isIntact) return [...(isSame(sealed, read) ? [] : [other(sealed)]), altered('catalog-altered', sealed, row)];
    if (isSame(row, read)) return [altered('manifest-altered', row, sealed), ...ofMetadata];
    if (isSame(sealed, read)) return [altered('catalog-altered', sealed, row)];
    return [other(row), altered('manifest-altered', row, sealed)];
  }
  const claim = row ?? sealed;
  if (claim === undefined || isSame(claim, read)) return ofMetadata;
  if (sealed !== undefined || row === undefined) return [other(claim)];
  // No manifest tells. An object that is the very one that was written, by its ETag and by what it says of itself, is right.
  const isUntouched = read.metadata['sha256'] === read.sha256 && row.etag !== undefined && row.etag === listed?.etag;
  return isUntouched || row.sha256 === read.sha256 ? [altered('catalog-altered', read, row)] : [other(row)];
}

function isSame(a: Claim, b: Claim): boolean {
  return a.sizeBytes === b.sizeBytes && a.sha256 === b.sha256;
}

/** What the object says of itself, where that is not what it is, or not whose it is. */
function judgeMetadata(row: NonNullable<Witnesses['row']>, { metadata, sha256 }: ReadObject): [string, string][] {
  const expected: readonly (readonly [name: string, value: string])[] = [
    ['app-id', row.appId],
    ['media-id', row.mediaId],
    // What was stored in parts has none.
    ...(metadata['sha256'] === undefined ? [] : [['sha256', sha256] as const]),
  ];
  return expected.flatMap(([name, value]): [string, string][] =>
    metadata[name] === value ? [] : [[`${name} ${value}`, `${name} ${metadata[name] ?? 'none'}`]],
  );
}

/** What an object is compared with: what was sealed, or else its row. */
function trusted({ row, sealed }: Witnesses): Claim | undefined {
  return sealed?.isIntact === true ? sealed : (row ?? sealed);
}

function differing(key: string, sealed: boolean) {
  return (difference: DifferenceWord, expected: Difference['expected'], found: Difference['found']): Difference => ({
    difference,
    key,
    expected,
    found,
    sealed,
  });
}
