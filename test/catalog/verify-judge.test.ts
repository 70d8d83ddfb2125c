import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import {
  type DayState,
  DIFFERENCES,
  type Difference,
  judgeRead,
  judgeUnread,
  type ReadObject,
  type Witnesses,
} from '../../src/catalog/verify-judge.ts';

const KEY = 'media/app=wx1/kind=image/dt=2026-06-15/m.jpg';
const [A, B, C] = ['a'.repeat(64), 'b'.repeat(64), 'c'.repeat(64)];
const CLOSED: DayState = { closeNext: '2026-06-16', changedDays: new Set(), settledBefore: 1_000 };

/** What object, row and manifest hold, a letter each; `!` marks a list that is not the one that was sealed. */
function witnesses(row: string, sealed: string): Witnesses {
  return {
    key: KEY,
    listed: { sizeBytes: sizeOf(row), etag: 'e1', lastModified: 0 },
    ...(row === ''
      ? {}
      : { row: { sizeBytes: sizeOf(row), sha256: hashOf(row), appId: 'wx1', mediaId: 'm', etag: 'e1' } }),
    ...(sealed === ''
      ? {}
      : { sealed: { sizeBytes: sizeOf(sealed), sha256: hashOf(sealed), isIntact: !sealed.endsWith('!') } }),
  };
}

function read(object: string, metadata: Record<string, string> = {}): ReadObject {
  const sha256 = hashOf(object);
  return { sizeBytes: sizeOf(object), sha256, metadata: { 'app-id': 'wx1', 'media-id': 'm', ...metadata } };
}

/** A capital letter is longer. */
function sizeOf(name: string): number {
  return /[A-Z]/.test(name) ? 20 : 10;
}

function hashOf(name: string): string {
  return name.slice(0, 1).toLowerCase().repeat(64);
}

const words = (found: readonly Difference[]): string =>
  found.map(({ difference, sealed }) => `${difference}${sealed ? '*' : ''}`).join(' ');

test.each([
  // object, row, manifest
  ['a', 'a', 'a', ''],
  ['a', 'a', '', ''],
  ['a', '', 'a', ''],
  ['b', 'a', 'a', 'sha256*'],
  ['B', 'a', 'a', 'size*'],
  ['a', 'b', 'a', 'catalog-altered*'],
  ['a', 'A', 'a', 'catalog-altered*'],
  ['b', 'b', 'a', 'sha256* catalog-altered*'],
  ['c', 'b', 'a', 'sha256* catalog-altered*'],
  ['b', 'a', '', 'sha256'],
  ['B', 'a', '', 'size'],
  ['a', 'A', '', 'catalog-altered'],
  ['b', '', 'a', 'sha256*'],
  // a list that is not the one that was sealed
  ['a', 'a', 'a!', ''],
  ['a', 'a', 'b!', 'manifest-altered'],
  ['a', 'b', 'a!', 'catalog-altered'],
  ['c', 'a', 'b!', 'sha256 manifest-altered'],
  ['b', 'a', 'a!', 'sha256'],
])('object %s, row %s, manifest %s: %s', (object, row, sealed, expected) => {
  expect(words(judgeRead(witnesses(row, sealed), read(object)))).toBe(expected);
});

test('what is not sealed is judged by the object, when it is the very one that was written', () => {
  const row = witnesses('a', '');
  expect(words(judgeRead(row, read('b', { sha256: B })))).toBe('catalog-altered');
  // It was written again since.
  const rewritten = { ...row, listed: { sizeBytes: 10, etag: 'e2', lastModified: 0 } };
  expect(words(judgeRead(rewritten, read('b', { sha256: B })))).toBe('sha256');
  // It does not hold what it says it does.
  expect(words(judgeRead(row, read('b', { sha256: C })))).toBe('sha256');
});

test('an object that says another thing of itself than its row is told of', () => {
  expect(words(judgeRead(witnesses('a', 'a'), read('a', { sha256: A })))).toBe('');
  const lost = { sizeBytes: 10, sha256: A, metadata: {} };
  expect(judgeRead(witnesses('a', 'a'), lost).map(({ expected, found }) => [expected, found])).toEqual([
    ['app-id wx1', 'app-id none'],
    ['media-id m', 'media-id none'],
  ]);
  expect(words(judgeRead(witnesses('a', ''), read('a', { sha256: B })))).toBe('metadata');
});

test.each<[string, Partial<Witnesses>, Partial<DayState>, string]>([
  ['no object', { listed: undefined } as never, {}, 'missing*'],
  ['no row', { row: undefined } as never, {}, 'uncatalogued*'],
  ['neither row nor line', { row: undefined, sealed: undefined } as never, {}, 'uncatalogued'],
  ['no line', { sealed: undefined } as never, {}, 'unsealed'],
  ['no line, on a day that is open', { sealed: undefined } as never, { closeNext: '2026-06-15' }, ''],
  [
    'no line, on a day that is to be sealed again',
    { sealed: undefined } as never,
    { changedDays: new Set(['2026-06-15']) },
    '',
  ],
  ['no line, just written', { sealed: undefined } as never, { settledBefore: 0 }, ''],
  ['neither, just written', { row: undefined, sealed: undefined } as never, { settledBefore: 0 }, ''],
  ['neither, before any day was closed', { row: undefined, sealed: undefined } as never, { closeNext: '' }, ''],
  ['a line and no row, just written', { row: undefined } as never, { settledBefore: 0 }, 'uncatalogued*'],
])('%s', (_, without, state, expected) => {
  const all = Object.entries({ ...witnesses('a', 'a'), ...without }).filter(([, value]) => value !== undefined);
  const known = Object.fromEntries(all) as unknown as Witnesses;
  expect(words(judgeUnread(known, { ...CLOSED, ...state }))).toBe(expected);
});

test('docs/fixity.md explains each difference in the same words', () => {
  const doc = readFileSync(new URL('../../docs/fixity.md', import.meta.url), 'utf8');
  for (const [word, meaning] of Object.entries(DIFFERENCES)) expect(doc).toContain(`| \`${word}\` | ${meaning} |`);
});
