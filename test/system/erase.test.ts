import { createHash } from 'node:crypto';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import { mediaIdOf } from '../../src/catalog/erase-wanted.ts';
import type { TableName } from '../../src/catalog/table.ts';
import { pseudonymOf } from '../../src/media/open-id.ts';
import { Secret } from '../../src/secret.ts';
import { catalogRows, filesOf, sorted } from '../support/catalog.ts';
import { APP_ID } from '../support/jobs.ts';
import { leaveTraces, type Person, type Traced } from '../support/person.ts';
import { keysBelow, openStack, type Stack } from '../support/stack.ts';
import { traces } from '../support/traces.ts';

const KEY = 'a-key-of-the-operator-0123456789';
const HMAC = { ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: KEY };
const never = new AbortController().signal;
/** Without compression a file of Redis shows what it holds. */
const REDIS = { ownRedis: true, redisArguments: ['--rdbcompression', 'no', '--save', '3600 1'] };

function needlesOf({ openId, media }: Person): Record<string, string> {
  const pseudonym = pseudonymOf(APP_ID, openId, new Secret(KEY));
  return {
    openId,
    pseudonym: pseudonym.slice('hmac-sha256:'.length),
    'openId in base64url': Buffer.from(openId).toString('base64url'),
    ...Object.fromEntries(media.map(({ mediaId }, index) => [`media ${index}`, mediaId])),
  };
}

/** What is to be found of somebody, wherever it is. */
async function whatIsThereOf(stack: Stack, { media }: Person): Promise<Record<string, unknown>> {
  const ids = new Set(media.map(({ mediaId }) => mediaId));
  const keys = (await keysBelow(stack, '')).filter((key) => ids.has(mediaIdOf(key) ?? ''));
  const tables = ['accepted', 'dead-letters', 'media', 'derived'] as const satisfies readonly TableName[];
  const rows: Record<string, unknown> = {};
  for (const name of tables)
    rows[name] = sorted((await catalogRows(stack, name)).filter((row) => ids.has(String(row['media_id']))));
  return { keys, ...rows };
}

async function manifestLines(stack: Stack): Promise<string[]> {
  const lines: string[] = [];
  for (const key of await keysBelow(stack, 'manifests/')) {
    const bytes = await filesOf(stack).getBytes(key, 1_000_000, never);
    if (bytes.ok && bytes.value !== undefined) lines.push(...gunzipSync(bytes.value).toString().trimEnd().split('\n'));
  }
  return lines;
}

function listHash(lines: readonly string[]): string {
  const hashes = lines.map((line) => {
    const { erased } = JSON.parse(line) as { erased?: string };
    return `${erased ?? createHash('sha256').update(line).digest('hex')}\n`;
  });
  return createHash('sha256').update(hashes.join('')).digest('hex');
}

async function expectGone(stack: Stack, { victim, lines }: Traced): Promise<void> {
  expect(await traces(stack, needlesOf(victim))).toEqual([]);
  const after = await manifestLines(stack);
  expect(listHash(after)).toBe(listHash(lines));
  expect(after).toHaveLength(lines.length);
}

test('an erased person is found nowhere, and the other as before', async () => {
  await using stack = await openStack({ ...REDIS, env: HMAC });
  const traced = await leaveTraces(stack);
  const { victim, other } = traced;
  const before = await traces(stack, needlesOf(victim));
  const places = [
    'Redis:',
    'file',
    'media/',
    'derived/',
    'annotations/',
    'dead-letters/',
    'catalog/media',
    'catalog/accepted',
    'catalog/dead-letters',
    'manifests/',
    'verifications/',
  ];
  expect(places.filter((place) => !before.some((where) => where.includes(place)))).toEqual([]);
  const ofOther = await whatIsThereOf(stack, other);

  const done = await stack.command(['erase', '--app', APP_ID, '--open-id', '-', '--by', 'dpo', '--json'], {
    input: `${victim.openId}\n`,
  });
  expect(done.stderr).not.toContain(victim.openId);
  expect(done.code).toBe(0);
  await expectGone(stack, traced);
  const after = await whatIsThereOf(stack, other);
  // What waited in the outbox has come into the catalog.
  expect(after['keys']).toEqual(ofOther['keys']);
  for (const name of ['accepted', 'dead-letters', 'media', 'derived'])
    expect(after[name]).toEqual(expect.arrayContaining(ofOther[name] as unknown[]));
  expect((after['media'] as unknown[]).length).toBe(12);
}, 120_000);
