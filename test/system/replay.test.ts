import { expect, test, vi } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { APP_ID } from '../support/jobs.ts';
import {
  jobOf,
  keysBelow,
  lettersOf,
  notArchived,
  openJobs,
  openStack,
  type Stack,
  untilIdle,
  writeLines,
} from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const MIB = 1024 * 1024;

async function open(stack: Stack, ...filter: string[]): Promise<string[]> {
  const { rows } = await stack.command(['dead-letters', 'list', '--json', ...filter]);
  return rows().map(({ mediaId }) => String(mediaId));
}

async function replay(stack: Stack, ...options: string[]): Promise<Record<string, unknown> | undefined> {
  const { code, rows } = await stack.command(['dead-letters', 'replay', '--json', '--note', 'corrected', ...options]);
  expect(code).toBe(0);
  return rows().at(-1);
}

test('dead letters are replayed by what they died of, once its cause is gone, and each tells how it ended', async () => {
  await using stack = await openStack({ env: { MEDIA_MAX_BYTES: '1MiB' } });
  const large = stack.addMedia(3, { format: 'mp4', sizeBytes: 2 * MIB });
  const odd = stack.addMedia(4);
  for (const { mediaId } of odd)
    stack.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 } });
  const small = stack.worker();
  await stack.queue.door.admit([...large, ...odd].map(jobOf));
  await untilIdle(stack);
  const ids = (media: readonly { mediaId: string }[]): string[] => media.map(({ mediaId }) => mediaId).sort();
  expect((await open(stack, '--reason', 'media-too-large')).sort()).toEqual(ids(large));
  expect((await open(stack, '--errcode', '40004')).sort()).toEqual(ids(odd));

  // Nothing has been corrected: the same end, and the history of both lives.
  expect(await replay(stack, '--reason', 'media-too-large')).toMatchObject({ replayed: 3, failed: 0 });
  await untilIdle(stack);
  expect((await open(stack, '--reason', 'media-too-large')).sort()).toEqual(ids(large));
  for (const letter of await lettersOf(stack)) {
    if (letter.reason !== 'media-too-large') continue;
    expect(letter).toMatchObject({ status: 'open', replays: [{ reason: 'corrected' }] });
    expect(letter.attempts.map(({ failure }) => failure)).toEqual(['media-too-large', 'media-too-large']);
  }

  await small.stop();
  stack.worker({ MEDIA_MAX_BYTES: '16MiB' });
  expect(await replay(stack, '--reason', 'media-too-large', '--app', APP_ID)).toMatchObject({ replayed: 3 });
  await untilIdle(stack);
  expect(await notArchived(stack, large)).toEqual([]);
  expect((await open(stack)).sort()).toEqual(ids(odd));

  stack.simulator.disarm();
  expect(await replay(stack, '--all', '--limit', '1')).toMatchObject({ matched: 1, replayed: 1 });
  expect(await replay(stack, '--all', '--rate', '50')).toMatchObject({ replayed: 3 });
  await untilIdle(stack);
  expect(await notArchived(stack, [...large, ...odd])).toEqual([]);
  expect(await open(stack)).toEqual([]);
  for (const { status, archivedKey, replays } of await lettersOf(stack)) {
    expect(status).toBe('resolved');
    expect(await keysBelow(stack, archivedKey ?? 'nowhere')).toEqual([archivedKey]);
    expect(replays.length).toBeGreaterThan(0);
  }
});

test('replaying twice, at once or later, makes one job of each media and archives it once', async () => {
  await using stack = await openStack();
  const media = stack.addMedia(12);
  stack.simulator.arm({ endpoint: 'media', action: { type: 'errcode', errcode: 40004 } });
  const worker = stack.worker();
  await stack.queue.door.admit(media.map(jobOf));
  await untilIdle(stack);
  stack.simulator.disarm();
  await worker.stop();

  const both = await Promise.all([replay(stack, '--all'), replay(stack, '--all')]);
  expect(both.map((sums) => sums?.['failed'])).toEqual([0, 0]);
  expect(await openJobs(stack)).toBe(media.length);
  expect(await replay(stack, '--all')).toMatchObject({ matched: 0, replayed: 0 });

  stack.worker();
  await untilIdle(stack);
  expect(await replay(stack, '--all')).toMatchObject({ matched: 0, replayed: 0 });
  expect(await openJobs(stack)).toBe(0);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(new Set((await lettersOf(stack)).map(({ status }) => status))).toEqual(new Set(['resolved']));
  // Once when it died, once when it was replayed.
  for (const { mediaId } of media) expect(stack.simulator.counts.media.get(mediaId)).toBe(2);
});

test('a media handed in again does nothing while it waits, is delayed, runs, is archived or is dead', async () => {
  await using stack = await openStack();
  const { simulator } = stack;
  const [archived, dead, delayed, running] = stack.addMedia(4);
  if (!archived || !dead || !delayed || !running) throw new Error('no media');
  simulator.arm({ endpoint: 'media', mediaId: dead.mediaId, action: { type: 'errcode', errcode: 40004 } });
  simulator.arm({ endpoint: 'media', mediaId: delayed.mediaId, action: { type: 'errcode', errcode: 40007 } });
  simulator.arm({ endpoint: 'media', mediaId: running.mediaId, action: { type: 'hang', where: 'body' }, times: 1 });
  const jobs = [archived, dead, delayed, running].map(jobOf);
  const file = await writeLines(stack, [...jobs, ...jobs]);
  const enqueue = async (): Promise<object | undefined> =>
    (await stack.command(['enqueue', '--file', file, '--json'])).rows().at(-1);
  const stateOf = async (mediaId: string): Promise<unknown> =>
    (await stack.command(['show', '--json', APP_ID, '--', mediaId])).rows()[0]?.['state'];

  expect(await enqueue()).toEqual({ accepted: 4, duplicates: 4, rejected: 0 });
  expect(await enqueue()).toEqual({ accepted: 0, duplicates: 8, rejected: 0 });
  expect(await stateOf(running.mediaId)).toBe('waiting');

  const worker = stack.worker();
  await Promise.all(['"msg":"archived"', 'given up', 'will be tried again'].map((text) => worker.said(text)));
  await eventually(() => (simulator.counts.media.has(running.mediaId) ? true : undefined));
  // 40007 is asked again after 10 s at the earliest.
  const states = [archived, dead, running].map(({ mediaId }) => stateOf(mediaId));
  expect(await Promise.all(states)).toEqual(['archived', 'dead', 'active']);
  const letters = await lettersOf(stack);
  const asked = new Map([archived, dead, running].map(({ mediaId }) => [mediaId, simulator.counts.media.get(mediaId)]));
  expect(await enqueue()).toEqual({ accepted: 0, duplicates: 8, rejected: 0 });
  expect(await enqueue()).toEqual({ accepted: 0, duplicates: 8, rejected: 0 });
  expect(await lettersOf(stack)).toEqual(expect.arrayContaining(letters));
  for (const [mediaId, count] of asked) expect(simulator.counts.media.get(mediaId)).toBe(count);

  await worker.stop(0);
});
