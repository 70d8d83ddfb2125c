import { expect, test, vi } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { createMediaProducer, type MediaProducer } from '../../src/index.ts';
import { eventually } from '../support/eventually.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { jobOf, openStack, type Stack, untilIdle } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const PUSHED_AT_ONCE = 20;

/** Hands the same media in again and again, as WeChat pushes a message that it believes unheard. */
interface Pushing {
  /** How often it has handed all of them in. */
  readonly rounds: number;
  /** Resolves when it has come to an end. */
  stop(): Promise<void>;
}

function pushAgainAndAgain(producer: MediaProducer, media: readonly SimulatedMedia[]): Pushing {
  const jobs = media.map(jobOf);
  let rounds = 0;
  let stopped = false;
  const push = async (): Promise<void> => {
    while (!stopped) {
      for (let from = 0; from < jobs.length && !stopped; from += PUSHED_AT_ONCE) {
        const { rejected } = await producer.enqueueMany(jobs.slice(from, from + PUSHED_AT_ONCE));
        expect(rejected).toEqual([]);
      }
      rounds += 1;
    }
  };
  const ended = push();
  // Told by `stop`.
  ended.catch(() => undefined);
  return {
    get rounds() {
      return rounds;
    },
    stop: () => {
      stopped = true;
      return ended;
    },
  };
}

/** Resolves when each of them has handed everything in once more, from its beginning. */
async function untilAllPushedAgain(pushings: readonly Pushing[]): Promise<void> {
  const goals = pushings.map(({ rounds }) => rounds + 2);
  await eventually(() => (pushings.every(({ rounds }, index) => rounds >= (goals[index] ?? 0)) ? true : undefined));
}

async function replayAll(stack: Stack): Promise<number> {
  const { code, rows } = await stack.command(['dead-letters', 'replay', '--all', '--note', 'corrected', '--json']);
  expect(code).toBe(0);
  return Number(rows().at(-1)?.['failed']);
}

test('media that two producers push again and again, while they are saved, die and are replayed, end once each', async () => {
  await using stack = await openStack({ ownRedis: true, env: { WORKER_CONCURRENCY: '8' } });
  const { simulator, queue } = stack;
  const saved = stack.addMedia(220, { sizeBytes: 4_000 });
  const dying = stack.addMedia(60);
  for (const { mediaId } of dying)
    simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40004 }, times: 1 });
  const mixed = saved.flatMap((media, index) => [media, ...dying.slice(index, index + 1)]);
  await using parts = new AsyncDisposableStack();
  const producers = [1, 2].map(() => {
    const producer = createMediaProducer({ redisUrl: stack.redisServer().url, timeoutMs: 60_000 });
    parts.defer(() => producer.close());
    return producer;
  });
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));

  // One from the front and one from the back, so that each media is pushed at many moments of its life.
  const [one, two] = producers;
  if (one === undefined || two === undefined) throw new Error('no producer');
  const pushings = [pushAgainAndAgain(one, mixed), pushAgainAndAgain(two, mixed.toReversed())];
  parts.defer(async () => {
    await Promise.all(pushings.map((pushing) => pushing.stop()));
  });
  await eventually(async () => ((await queue.deadLetterIndex.count()) === dying.length ? true : undefined));
  await untilIdle(stack);
  await untilAllPushedAgain(pushings);
  expect(await queue.deadLetterIndex.count()).toBe(dying.length);

  expect(await Promise.all([replayAll(stack), replayAll(stack)])).toEqual([0, 0]);
  await eventually(async () => ((await queue.deadLetterIndex.count()) === 0 ? true : undefined));
  await untilIdle(stack);
  await untilAllPushedAgain(pushings);
  await Promise.all(pushings.map((pushing) => pushing.stop()));
  await untilIdle(stack);

  for (const { mediaId } of saved) expect(simulator.counts.media.get(mediaId)).toBe(1);
  for (const { mediaId } of dying) expect(simulator.counts.media.get(mediaId)).toBe(2);
  await expectEachEndedOnce(stack, { saved: [...saved, ...dying], replayed: dying, workers });
});
