import { setTimeout as sleep } from 'node:timers/promises';
import { laneOf } from '../../src/queue/lane.ts';
import { untilReady } from '../../src/redis/connect.ts';
import { between, MINUTE, type Random, SECOND } from '../../src/time.ts';
import { openJobs, type Stack } from '../support/stack.ts';
import { DISTURBANCES, type Disturbance, replayOpen } from './disturbances.ts';
import { judge, type Verdict } from './verdict.ts';
import { makeWishes, oneOf } from './wishes.ts';
import { openWorld, type World, type WorldOptions } from './world.ts';

export interface ChaosOptions extends WorldOptions {
  readonly random: Random;
  /** How long media are handed in and things go wrong; absent: until each disturbance has happened once. */
  readonly durationMs?: number;
  /** Jobs that wait or run at once, at most. */
  readonly backlog: number;
  /** Receives a line for everything that happens. */
  readonly note: (text: string) => void;
}

export interface ChaosReport extends Verdict {
  readonly seconds: number;
  readonly accepted: number;
  readonly duplicates: number;
  readonly refusals: number;
  readonly workersStarted: number;
  readonly peakRssBytes: number;
  /** How often each disturbance has happened. */
  readonly disturbances: Readonly<Record<string, number>>;
}

/** How many things go wrong at once, at most. */
const AT_ONCE = 2;
/** How long the fleet may take for what is left, once all is calm. */
const CALM_LIMIT_MS = 2 * MINUTE;
const LOOK_MS = 0.1 * SECOND;
/** After so many looks what is delayed is made due. */
const WIND_EVERY = 40;

/**
 * Hands media in while things go wrong, then lets the fleet finish in peace, and compares what went in with what lies
 * there.
 *
 * Chance decides what happens; the same chance gives the same media and disturbances, though not at the same moments.
 */
export async function runChaos(options: ChaosOptions): Promise<ChaosReport> {
  const { random, durationMs, backlog, note } = options;
  const startedAt = performance.now();
  await using world = await openWorld(options);
  const { handedIn, crew } = world;
  const happened = new Map<string, number>();
  const happen = async (disturbance: Disturbance): Promise<void> => {
    note(disturbance.name);
    happened.set(disturbance.name, (happened.get(disturbance.name) ?? 0) + 1);
    await disturbance.happen(world, random);
  };

  const calm = new AbortController();
  const handingIn = handInUntil(calm.signal, world, backlog, random);
  if (durationMs === undefined) await eachOnce(random, happen);
  else await forAWhile(durationMs, random, happen);
  calm.abort();
  await handingIn;

  note('calm');
  await settle(world, note);
  note('writing the catalog');
  await world.cataloguer.finish();
  note(`comparing ${handedIn.accepted.size} media`);
  const verdict = await judge(world);
  return {
    ...verdict,
    seconds: Math.round((performance.now() - startedAt) / SECOND),
    accepted: handedIn.accepted.size,
    duplicates: handedIn.duplicates,
    refusals: handedIn.refusals,
    workersStarted: crew.started,
    peakRssBytes: crew.peakRssBytes,
    disturbances: Object.fromEntries(happened),
  };
}

async function handInUntil(
  calm: AbortSignal,
  { stack, handedIn }: World,
  backlog: number,
  random: Random,
): Promise<void> {
  for (let round = 1; !calm.aborted; round += 1) {
    // A minute of a run is hours of media: what waits for a time of its own does not fill the backlog.
    if (round % WIND_EVERY === 0) await windForward(stack).catch(() => undefined);
    const open = await openJobs(stack).catch(() => backlog);
    if (open < backlog) await handedIn.push(makeWishes(stack, between(5, 60, random), random));
    await sleep(LOOK_MS);
  }
}

/** One after the other, in an order that chance gives. */
async function eachOnce(random: Random, happen: (disturbance: Disturbance) => Promise<void>): Promise<void> {
  const left = [...DISTURBANCES];
  while (left.length > 0) {
    const disturbance = oneOf(left, random);
    left.splice(left.indexOf(disturbance), 1);
    await happen(disturbance);
  }
}

/** Several at once, but no two to the same thing. */
async function forAWhile(
  durationMs: number,
  random: Random,
  happen: (disturbance: Disturbance) => Promise<void>,
): Promise<void> {
  const endsAt = performance.now() + durationMs;
  const busy = new Set<Disturbance['target']>();
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (performance.now() < endsAt) {
        const disturbance = oneOf(
          DISTURBANCES.filter(({ target }) => !busy.has(target)),
          random,
        );
        busy.add(disturbance.target);
        await happen(disturbance);
        busy.delete(disturbance.target);
        await sleep(between(0.2 * SECOND, 2 * SECOND, random));
      }
    }),
  );
}

/** Hands in what may not have got in, lets all jobs end, replays what died for a cause that is gone, and waits again. */
async function settle(world: World, note: (text: string) => void): Promise<void> {
  const { stack, handedIn } = world;
  await untilReady(stack.queue.redis, AbortSignal.timeout(MINUTE));
  for (let left = 50; handedIn.unsure.size > 0; left -= 1) {
    if (left === 0) throw new Error('Redis is back, and takes no jobs');
    await handedIn.push([...handedIn.unsure.values()]);
    await sleep(LOOK_MS);
  }
  await untilDone(stack, note);
  note('replaying what has died');
  await replayOpen(world, Number.POSITIVE_INFINITY);
  await untilDone(stack, note);
}

/** Waits until nothing is left to do. What waits for a time of its own need not: its time is wound forward. */
async function untilDone(stack: Stack, note: (text: string) => void): Promise<void> {
  const giveUpAt = performance.now() + CALM_LIMIT_MS;
  for (let open = await openJobs(stack); open > 0; open = await openJobs(stack)) {
    note(`${open} jobs are left`);
    // What is left is told by the verdict.
    if (performance.now() > giveUpAt) return;
    await windForward(stack);
    await sleep(SECOND);
  }
}

/** Makes delayed jobs and the probes of closed gates due now, as if their time had come. */
async function windForward({ queue, redis, config }: Stack): Promise<void> {
  for (const { appId } of config.accounts) {
    const delayed = queue.lanes.lane(laneOf(appId)).keyOfJob('delayed');
    for (const id of await redis.zrange(delayed, '0', '-1')) await redis.zadd(delayed, 'XX', DUE_NOW, id);
  }
  for (const gate of await queue.gates.list()) {
    await redis.hset(queue.keys.gates, gate.appId, JSON.stringify({ ...gate, probeAt: 0 }));
  }
}

/** Any time in the past will do. */
const DUE_NOW = 1;
