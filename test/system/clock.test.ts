import { expect, test, vi } from 'vitest';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { type Lane, laneOf } from '../../src/queue/lane.ts';
import { DAY, HOUR } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { APP_ID } from '../support/jobs.ts';
import {
  type Environment,
  healthUrl,
  jobOf,
  lettersOf,
  logLines,
  openJobs,
  openStack,
  type Stack,
  untilIdle,
} from '../support/stack.ts';
import { openS3Door } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const PRELOAD = new URL('../support/stepped-clock.ts', import.meta.url).href;

/** The environment of a worker whose clock is ahead, and is set forward by as much again and again. */
function clockOf({ aheadMs = 0, stepMs = 0 }: { aheadMs?: number; stepMs?: number }): Environment {
  return {
    NODE_OPTIONS: `--import ${PRELOAD}`,
    CLOCK_AHEAD_MS: String(aheadMs),
    CLOCK_STEP_MS: String(stepMs),
    WORKER_CONCURRENCY: '6',
    WORKER_LOCK_SECONDS: '3',
  };
}

async function stepClock(worker: WorkerProcess): Promise<void> {
  worker.process.kill('SIGUSR2');
  await worker.said('the clock was stepped');
}

async function untilLeft(stack: Stack, count: number): Promise<void> {
  await eventually(async () => ((await openJobs(stack)) <= count ? true : undefined));
}

async function healthOf(workers: readonly WorkerProcess[]): Promise<number[]> {
  return Promise.all(workers.map(async (worker) => (await fetch(`${healthUrl(worker)}/healthz`)).status));
}

function laneOfApp({ queue }: Stack): Lane {
  return queue.lanes.lane(laneOf(APP_ID));
}

const STEPS = [
  { what: 'back by an hour', stepMs: -HOUR },
  { what: 'forward by an hour', stepMs: HOUR },
  { what: 'forward by four days', stepMs: 4 * DAY },
];

test.each(STEPS)(
  'a worker whose clock is set $what goes on alone, and runs what is delayed in time',
  async ({ stepMs }) => {
    await using stack = await openStack();
    const { simulator } = stack;
    simulator.arm({ endpoint: 'media', action: { type: 'truncate' }, every: 5, times: 30 });
    const saved = stack.addMedia(220, { sizeBytes: 5_000 });
    const unknown = stack.addMedia(20);
    // Asked for again before it is believed, ten seconds later at the earliest.
    for (const { mediaId } of unknown)
      simulator.arm({ endpoint: 'media', mediaId, action: { type: 'errcode', errcode: 40007 }, times: 1 });
    simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 2_500, everyMs: 10 } });
    const worker = stack.worker(clockOf({ stepMs }));
    await worker.said('worker started');
    await stack.queue.door.admit([...saved, ...unknown].map(jobOf));
    await untilLeft(stack, 170);
    await stepClock(worker);
    await untilIdle(stack);
    expect(await healthOf([worker])).toEqual([200]);
    expect(simulator.counts.tokens.get(APP_ID)).toBe(1);
    expect(logLines(worker, 'left to another worker')).toEqual([]);
    await expectEachEndedOnce(stack, { saved: [...saved, ...unknown], workers: [worker] });

    // It still looks for what nobody tells it of.
    const later = stack.addMedia(10);
    await stack.queue.door.admit(later.map(jobOf));
    await untilIdle(stack);
    await expectEachEndedOnce(stack, { saved: [...saved, ...unknown, ...later], workers: [worker] });
  },
);

test('workers whose clocks differ by days give nothing up for the hour, while the store is away or a gate closed', async () => {
  await using door = await openS3Door();
  await using stack = await openStack({ gateway: door.gateway });
  const { simulator, queue, redis } = stack;
  const media = stack.addMedia(240, { sizeBytes: 2_000 });
  const behind = stack.worker(clockOf({ aheadMs: -HOUR }));
  const ahead = stack.worker(clockOf({ aheadMs: 4 * DAY }));
  await Promise.all([behind, ahead].map((worker) => worker.said('worker started')));
  door.answer({ status: 503, code: 'SlowDown' }, ['PUT']);
  await queue.door.admit(media.map(jobOf));
  await Promise.all([behind, ahead].map((worker) => worker.said('"code":"store-busy"')));
  expect(await lettersOf(stack)).toEqual([]);

  simulator.arm({ endpoint: 'media', action: { type: 'errcode', errcode: 45009 } });
  await Promise.any([behind, ahead].map((worker) => worker.said('gate closed')));
  await behind.stop();
  door.answer(undefined);
  // The one that is days ahead looks behind the gate, for what must run now.
  await redis.del(queue.keys.probe(APP_ID));
  await eventually(async () => ((await redis.exists(queue.keys.probe(APP_ID))) === 1 ? true : undefined));
  await eventually(async () => ((await laneOfApp(stack).counts()).active === 0 ? true : undefined));
  expect(await lettersOf(stack)).toEqual([]);
  expect(await openJobs(stack)).toBe(media.length);

  const again = stack.worker(clockOf({ aheadMs: -HOUR }));
  simulator.disarm();
  await queue.gates.open(APP_ID);
  await untilIdle(stack, 120_000);
  const workers = [behind, ahead, again];
  expect(await healthOf([ahead, again])).toEqual([200, 200]);
  expect(simulator.counts.tokens.get(APP_ID)).toBe(1);
  for (const worker of workers) expect(logLines(worker, 'the clock of this machine')).toHaveLength(1);
  await expectEachEndedOnce(stack, { saved: media, workers });
});
