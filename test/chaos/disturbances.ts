import { setTimeout as sleep } from 'node:timers/promises';
import type { Fault as WeixinFault } from '../../src/demo/weixin/fault.ts';
import { replay } from '../../src/queue/replay.ts';
import { between, type Random, SECOND } from '../../src/time.ts';
import type { Fault as StoreFault } from '../support/fault-proxy.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { SPOILING } from '../support/troubles.ts';
import { oneOf } from './wishes.ts';
import { someOf, type World } from './world.ts';

/** Something that goes wrong, or that somebody does, while media are on their way. */
export interface Disturbance {
  readonly name: string;
  /** What it happens to. Only one happens to the same thing at a time. */
  readonly target: 'worker' | 'catalog' | 'redis' | 'store' | 'weixin' | 'queue';
  /** Begins it, lets it last, and ends it. */
  readonly happen: (world: World, random: Random) => Promise<void>;
}

const APPS = [APP_ID, OTHER_APP_ID] as const;
/** A lock lasts two seconds here: some outlast it and some do not. */
const LASTS_MS = [0.2 * SECOND, 4 * SECOND] as const;

export const DISTURBANCES: readonly Disturbance[] = [
  { name: 'a worker is killed', target: 'worker', happen: ({ crew }, random) => crew.kill(crew.pick(random)) },
  {
    name: 'all workers are killed at once',
    target: 'worker',
    happen: async ({ crew }) => {
      await Promise.all([...crew.running].map((worker) => crew.kill(worker)));
    },
  },
  { name: 'a worker is asked to stop', target: 'worker', happen: ({ crew }, random) => crew.stop(crew.pick(random)) },
  {
    name: 'a worker freezes',
    target: 'worker',
    happen: async ({ crew }, random) => {
      const { process: child } = crew.pick(random);
      child.kill('SIGSTOP');
      await last(random);
      child.kill('SIGCONT');
    },
  },
  {
    name: 'a catalog process is killed',
    target: 'catalog',
    happen: async ({ cataloguer }, random) => cataloguer.kill(oneOf(cataloguer.running, random)),
  },
  {
    name: 'all catalog processes are killed at once',
    target: 'catalog',
    happen: async ({ cataloguer }) => {
      await Promise.all([...cataloguer.running].map((one) => cataloguer.kill(one)));
    },
  },
  {
    name: 'a catalog process is asked to stop',
    target: 'catalog',
    happen: ({ cataloguer }, random) => cataloguer.stop(oneOf(cataloguer.running, random)),
  },
  {
    name: 'a catalog process freezes',
    target: 'catalog',
    happen: async ({ cataloguer }, random) => {
      const { process: child } = oneOf(cataloguer.running, random);
      child.kill('SIGSTOP');
      await last(random);
      child.kill('SIGCONT');
    },
  },
  {
    name: 'Redis is killed',
    target: 'redis',
    happen: async ({ stack }, random) => {
      const { process: child } = stack.redisServer();
      const { promise: gone, resolve } = Promise.withResolvers<void>();
      child.once('exit', () => resolve());
      child.kill('SIGKILL');
      await gone;
      await last(random);
      await stack.restartRedis();
    },
  },
  {
    name: 'Redis freezes',
    target: 'redis',
    happen: async ({ stack }, random) => {
      const { process: child } = stack.redisServer();
      child.kill('SIGSTOP');
      await last(random);
      child.kill('SIGCONT');
    },
  },
  {
    name: 'Redis is full',
    target: 'redis',
    happen: async ({ stack }, random) => {
      await stack.redis.config('SET', 'maxmemory', '1');
      await last(random);
      await stack.redis.config('SET', 'maxmemory', '0');
    },
  },
  {
    name: 'Redis drops its connections',
    target: 'redis',
    happen: async ({ stack }) => {
      await stack.redis.call('CLIENT', 'KILL', 'TYPE', 'normal');
    },
  },
  ...(
    [
      { type: 'answer', status: 503, code: 'SlowDown' },
      { type: 'answer', status: 500, code: 'InternalError' },
      { type: 'answer', status: 403, code: 'AccessDenied' },
      { type: 'answer', status: 404, code: 'NoSuchBucket' },
      { type: 'lose-answer' },
      { type: 'cut-answer', afterBytes: 20 },
      { type: 'cut-request', afterBytes: 2_000 },
    ] satisfies StoreFault[]
  ).map(
    (fault): Disturbance => ({
      name: `the store: ${'code' in fault ? fault.code : fault.type}`,
      target: 'store',
      happen: async ({ store }, random) => {
        const armed = store.arm(() => true, fault);
        await last(random);
        armed.disarm();
      },
    }),
  ),
  {
    name: 'the store: a bit flips now and then',
    target: 'store',
    happen: async ({ store }, random) => {
      const armed = store.arm(({ operation, headers }) => isWrite(operation) && Number(headers['content-length']) > 0, {
        type: 'corrupt',
        atByte: 0,
      });
      await last(random);
      armed.disarm();
    },
  },
  {
    name: 'the store: some requests are never answered',
    target: 'store',
    happen: async ({ store }, random) => {
      const where = oneOf(['before', 'after'] as const, random);
      const armed = store.arm(({ operation }) => isWrite(operation), { type: 'hang', where }, 2);
      await last(random);
      armed.disarm();
    },
  },
  {
    name: 'WeChat: every answer is spoilt',
    target: 'weixin',
    happen: (world, random) => spoil(world, random, { endpoint: 'media', action: oneOf(SPOILING, random).action }),
  },
  {
    name: 'WeChat: every second answer is spoilt',
    target: 'weixin',
    happen: (world, random) =>
      spoil(world, random, { endpoint: 'media', action: oneOf(SPOILING, random).action, every: 2 }),
  },
  {
    name: 'WeChat: no tokens',
    target: 'weixin',
    happen: (world, random) =>
      spoil(world, random, {
        endpoint: 'token',
        action: oneOf([{ type: 'reset' }, { type: 'html', status: 502 }, { type: 'errcode', errcode: -1 }], random),
      }),
  },
  {
    name: 'WeChat: the token is refreshed by somebody else',
    target: 'weixin',
    happen: async ({ stack }) => {
      stack.simulator.rotateToken(APP_ID);
      stack.simulator.rotateToken(OTHER_APP_ID, 'token');
    },
  },
  {
    name: 'WeChat: tokens live for seconds only',
    target: 'weixin',
    happen: async ({ stack }, random) => {
      for (const appId of APPS) stack.simulator.setTokenLife(appId, between(3 * SECOND, 9 * SECOND, random));
      await last(random);
      for (const appId of APPS) stack.simulator.setTokenLife(appId, 7_200 * SECOND);
    },
  },
  {
    name: 'WeChat: an app is refused',
    target: 'weixin',
    happen: (world, random) =>
      spoil(world, random, {
        endpoint: 'media',
        appId: OTHER_APP_ID,
        action: { type: 'errcode', errcode: oneOf([45009, 45011, 48001, 50002], random) },
      }),
  },
  {
    name: 'media are pushed again',
    target: 'queue',
    happen: async ({ handedIn }, random) => {
      await handedIn.push(someOf(handedIn.accepted.values(), 200, random));
      await handedIn.push(someOf(handedIn.unsure.values(), 200, random));
    },
  },
  {
    name: 'an operator replays dead letters',
    target: 'queue',
    happen: async (world, random) => {
      await replayOpen(world, between(5, 50, random)).catch(() => undefined);
    },
  },
];

/** Replays dead letters that are open, as `dead-letters replay` does. Returns how many jobs came of it. */
export async function replayOpen({ stack }: World, limit: number): Promise<number> {
  const { queue, opened, config } = stack;
  const parts = {
    redis: queue.redis,
    keys: queue.keys,
    lanes: queue.lanes,
    deadLetters: opened.deadLetters,
    mediaTtlMs: config.media.ttlMs,
    now: Date.now,
  };
  const options = { note: { by: 'chaos', reason: 'a replay' }, includeExpired: false, dryRun: false };
  const signal = AbortSignal.timeout(30 * SECOND);
  let replayed = 0;
  // First all of them: one that dies again while this goes on would come up again.
  for (const summary of await Array.fromAsync(queue.deadLetterIndex.list({ limit }))) {
    const { outcome } = await replay(parts, summary, options, signal);
    if (outcome === 'replayed') replayed += 1;
  }
  return replayed;
}

async function spoil({ stack }: World, random: Random, fault: WeixinFault): Promise<void> {
  const disarm = stack.simulator.arm(fault);
  await last(random);
  disarm();
}

function isWrite(operation: string): boolean {
  return operation === 'PutObject' || operation === 'UploadPart' || operation === 'CompleteMultipartUpload';
}

async function last(random: Random): Promise<void> {
  await sleep(between(...LASTS_MS, random));
}
