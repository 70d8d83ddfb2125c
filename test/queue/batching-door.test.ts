import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { type BatchingDoor, createBatchingDoor } from '../../src/queue/batching-door.ts';
import type { Door, JobAdmission } from '../../src/queue/door.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { testClock } from '../support/clock.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import { never, testDoor, testLanes } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const TIMEOUT_MS = 30_000;

/** A door that answers when it is told to, with the jobs themselves. */
function heldDoor(): { door: Pick<Door, 'admitEach'>; batches: Batch[] } {
  const batches: Batch[] = [];
  return {
    batches,
    door: {
      admitEach: (inputs, signal) => {
        const { promise, resolve, reject } = Promise.withResolvers<readonly JobAdmission[]>();
        batches.push({ inputs, signal, answer: () => resolve(inputs as readonly JobAdmission[]), fail: reject });
        return promise;
      },
    },
  };
}

interface Batch {
  readonly inputs: readonly unknown[];
  readonly signal: AbortSignal | undefined;
  answer(): void;
  fail(reason: unknown): void;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('who comes while others are under way', () => {
  let held: ReturnType<typeof heldDoor>;
  let door: BatchingDoor;

  beforeEach(() => {
    held = heldDoor();
    door = createBatchingDoor(held.door, TIMEOUT_MS);
  });

  const admit = (...inputs: unknown[]): Promise<readonly unknown[]> => door.admitEach(inputs, never);

  test('goes through as one batch, and each is given its own answers', async () => {
    const calls = [admit('a'), admit(), admit('b', 'c'), admit('d'), admit('e', 'f', 'g')];
    expect(held.batches.map(({ inputs }) => inputs)).toEqual([['a']]);
    held.batches[0]?.answer();
    await turn();
    expect(held.batches[1]?.inputs).toEqual(['b', 'c', 'd', 'e', 'f', 'g']);
    held.batches[1]?.answer();
    expect(await Promise.all(calls)).toEqual([['a'], [], ['b', 'c'], ['d'], ['e', 'f', 'g']]);
  });

  test('is not cut apart, and no batch is larger than 500 but for one caller', async () => {
    const sizes = [1, 300, 200, 1, 1_000, 499, 2];
    const calls = sizes.map((size) => admit(...Array.from({ length: size }, () => size)));
    for (let at = 0; at < 6; at += 1) {
      held.batches[at]?.answer();
      await turn();
    }
    expect(held.batches.map(({ inputs }) => inputs.length)).toEqual([1, 500, 1, 1_000, 499, 2]);
    expect((await Promise.all(calls)).map(({ length }) => length)).toEqual(sizes);
  });

  test('shares an error with its batch, and those behind go on', async () => {
    const calls = Promise.allSettled([admit('a'), admit('b'), admit('c')]);
    held.batches[0]?.answer();
    await turn();
    const behind = admit('d');
    held.batches[1]?.fail(new Error('full'));
    await turn();
    held.batches[2]?.answer();
    const ends = await calls;
    expect(ends.map((end) => (end.status === 'fulfilled' ? end.value : String(end.reason)))).toEqual([
      ['a'],
      'Error: full',
      'Error: full',
    ]);
    expect(await behind).toEqual(['d']);
  });

  test('takes its jobs along when it gives up', async () => {
    const first = admit('a');
    const gone = new AbortController();
    const left = door.admitEach(['b'], gone.signal);
    const stays = admit('c');
    gone.abort(new Error('gone'));
    await expect(left).rejects.toThrow('gone');
    held.batches[0]?.answer();
    await turn();
    expect(held.batches[1]?.inputs).toEqual(['c']);
    held.batches[1]?.answer();
    expect(await Promise.all([first, stays])).toEqual([['a'], ['c']]);
  });
});

test('a door that never answers is not waited for, is told so, and does not keep those behind out', async () => {
  const { door: silent, batches } = heldDoor();
  const door = createBatchingDoor(silent, 20);
  const ends = await Promise.allSettled(['a', 'b', 'c'].map((input) => door.admitEach([input], never)));
  for (const end of ends) expect(end).toMatchObject({ status: 'rejected', reason: { name: 'TimeoutError' } });
  expect(batches[0]?.signal?.aborted).toBe(true);
  await Promise.allSettled([door.admitEach(['d'], never)]);
  expect(batches.at(-1)?.inputs).toEqual(['d']);
});

describe('before a real door', () => {
  let corner: TestRedis;

  beforeEach(async () => {
    corner = await openTestRedis();
  });

  afterEach(() => corner[Symbol.asyncDispose]());

  test('many callers have each job accepted once, whoever hands it in at the same time', async () => {
    const clock = testClock();
    const lanes = testLanes(corner);
    const door = createBatchingDoor(testDoor(corner, lanes, clock), TIMEOUT_MS);
    const jobs = Array.from({ length: 300 }, () => testJob());
    const answers = await Promise.all([...jobs, ...jobs].map((job) => door.admitEach([job], never)));
    expect(answers.slice(0, 300)).toEqual(jobs.map(() => ['accepted']));
    expect(answers.slice(300)).toEqual(jobs.map(() => ['duplicate']));
    expect(await lanes.lane(laneOf(APP_ID)).counts()).toMatchObject({ waiting: 300 });
    await lanes.close();
  });
});
