import { randomUUID } from 'node:crypto';
import { within } from '../lifecycle.ts';
import type { RedisClient } from '../redis/connect.ts';
import { createRedisRoom } from '../redis/redis-room.ts';
import { SECOND } from '../time.ts';
import type { Fleet } from './fleet.ts';
import type { Taken, TakenJob } from './lane.ts';
import { chooseLane, isTurnOf } from './lane-choice.ts';
import type { LockKeeper } from './lock-keeper.ts';
import { createMarkerWatch } from './marker-watch.ts';
import { type RunJob, ShutdownError } from './run-job.ts';
import { createServedLanes, dueNoLaterThan, type ServedLane, type ServedLanesOptions } from './served-lanes.ts';
import type { Slot } from './settle.ts';

/** After an error of Redis. */
const ERROR_PAUSE_MS = SECOND;
/** Takes under way in one lane, at most: more at once bring little, and find nothing where a lane comes to its end. */
const MAX_TAKES_AT_ONCE = 8;
/** For aborted attempts to put their jobs back. */
const RELEASE_MS = 5 * SECOND;

export interface DispatcherOptions extends ServedLanesOptions {
  /** A connection of its own: it waits with blocking commands. */
  readonly blocking: RedisClient;
  readonly fleet: Pick<Fleet, 'serve' | 'isServed'>;
  readonly locks: LockKeeper;
  readonly runJob: RunJob;
  readonly concurrency: number;
}

/**
 * Hands jobs to the slots of this worker: takes them from the lanes in turn, as slots come free.
 *
 * It sleeps while there is nothing to do. What wakes it: a slot that comes free, a marker that BullMQ sets in a lane
 * when a job is added, the time of the next delayed job, a gate, the sweep.
 *
 * A busy worker leaves the markers to idle ones, which can run a job at once. So that a lane with a large backlog does
 * not keep it from seeing others, it looks into the lanes now and then, before the job it takes next.
 */
export interface Dispatcher {
  /** Runs until `stop`. */
  run(): Promise<void>;
  /**
   * Takes no more jobs, waits `graceMs` for those that run, then has the rest put back. Resolves soon after that, also
   * when Redis is gone.
   */
  stop(graceMs: number): Promise<void>;
  readonly inFlight: number;
  /** By the stopwatch, when the loop last came round; for the health check. */
  readonly lastTurnAt: number;
}

interface Taking {
  readonly job: TakenJob;
  /** By the stopwatch, before the call. */
  readonly takenAt: number;
}

interface Running {
  readonly abort: AbortController;
  readonly done: Promise<unknown>;
}

export function createDispatcher(options: DispatcherOptions): Dispatcher {
  const { gates, fleet, locks, runJob, apps, concurrency, now, elapsed, observe } = options;
  const lanes = createServedLanes(options);
  const room = createRedisRoom(options.redis, elapsed);
  const markers = createMarkerWatch({ blocking: options.blocking, lanes, hasFreeSlot, now, observe, onWork: wake });
  const running = new Set<Running>();
  const looks = new Set<Promise<void>>();
  const takes = new Set<Promise<void>>();
  let takeFaultAt = Number.NEGATIVE_INFINITY;
  let unsettledAt = Number.NEGATIVE_INFINITY;
  const workerId = randomUUID();
  let turn = 0;
  let lastTurnAt = elapsed();
  let stopping = false;
  /** Set by whatever may have changed what there is to do, until the loop has come round. */
  let isAwake = false;
  let endPause = (): void => undefined;

  function wake(): void {
    isAwake = true;
    endPause();
  }

  async function run(): Promise<void> {
    lanes.begin();
    const watching = markers.run();
    while (!stopping) {
      lastTurnAt = elapsed();
      try {
        await turnOnce();
      } catch (error) {
        observe({ type: 'fault', where: 'dispatcher', error });
        await pause(ERROR_PAUSE_MS);
      }
    }
    await watching;
    // What was taken while `stop` was called goes back.
    await within(RELEASE_MS, Promise.all(takes));
    await settled(RELEASE_MS);
  }

  async function turnOnce(): Promise<void> {
    isAwake = false;
    await gates.refresh();
    void room.refresh();
    await lanes.rescue();
    await lanes.sweep();
    lanes.markDue();
    await lookBehindGates();
    if (stopping) return;
    const state = await chooseNext();
    if (state !== undefined) takeFrom(state);
    else await pause(SECOND);
  }

  function hasFreeSlot(): boolean {
    return running.size + takes.size < concurrency;
  }

  async function chooseNext(): Promise<ServedLane | undefined> {
    if (!hasFreeSlot()) return undefined;
    const state = chooseLane(lanes, mayTakeFrom);
    // Before a job is taken while markers are not waited for.
    if (state === undefined || !(await lanes.glance())) return state;
    return chooseLane(lanes, mayTakeFrom);
  }

  function mayTakeFrom(state: ServedLane): boolean {
    return state.taking < state.takesAtOnce && lanes.isOpen(state);
  }

  /** One worker at a time looks behind a closed gate; into a lane that others serve, one that can't serve it never. */
  async function isOursToLook(appId: string): Promise<boolean> {
    if (!apps.has(appId) && (await fleet.isServed(appId))) return false;
    return gates.mayLook(appId);
  }

  /** As soon as a slot is free: where long jobs take them all, a sweep may never meet one. */
  async function lookBehindGates(): Promise<void> {
    for (const state of lanes) {
      if (!state.lookDue || !mayLookNow(state)) continue;
      state.lookDue = false;
      if (!lanes.isOpen(state) && (await isOursToLook(state.appId))) look(state);
    }
  }

  /** Begins to take a job. Several at a time share a way to Redis and back, which is most of what a take costs. */
  function takeFrom(state: ServedLane): void {
    state.taking += 1;
    state.running += 1;
    const ended = takeAndStart(state).finally(() => {
      state.taking -= 1;
      state.running -= 1;
      takes.delete(ended);
      wake();
    });
    takes.add(ended);
  }

  async function takeAndStart(state: ServedLane): Promise<void> {
    try {
      const taken = await take(state);
      if (taken === undefined) return;
      state.takesAtOnce = Math.min(state.takesAtOnce + 1, MAX_TAKES_AT_ONCE);
      // The gate may have been closed meanwhile.
      void start(state, taken, !lanes.isOpen(state));
    } catch (error) {
      rest(state, error);
    }
  }

  /** Leaves a lane alone for a while after an error, which is told once for all lanes: they may be many, and take no notice. */
  function rest(state: ServedLane, error: unknown): void {
    state.takesAtOnce = 1;
    state.ready = false;
    state.nextAt = now() + ERROR_PAUSE_MS;
    if (elapsed() - takeFaultAt < ERROR_PAUSE_MS) return;
    takeFaultAt = elapsed();
    observe({ type: 'fault', where: 'dispatcher', error });
  }

  function mayLookNow(state: ServedLane): state is ServedLane & { readonly appId: string } {
    return state.appId !== undefined && !state.looking && hasFreeSlot();
  }

  function look(state: ServedLane): void {
    const ended = lookBehind(state).finally(() => looks.delete(ended));
    looks.add(ended);
  }

  /** Looks behind a closed gate, for as long as the jobs it finds must run now: a probe, or the last moments of a media. */
  async function lookBehind(state: ServedLane): Promise<void> {
    state.looking = true;
    try {
      for (let again = true; again; again = !stopping && !lanes.isOpen(state)) {
        const taken = await take(state);
        if (taken === undefined || !(await start(state, taken, true))) return;
      }
    } catch (error) {
      observe({ type: 'fault', where: 'dispatcher', error });
    } finally {
      state.looking = false;
    }
  }

  function take(state: ServedLane): Promise<Taking | undefined> {
    return takeBy(state, () => state.lane.take(`${workerId}:${turn}`));
  }

  /** Takes by a step, and notes what it tells of the lane. */
  async function takeBy(state: ServedLane, step: () => Promise<Taken>): Promise<Taking | undefined> {
    turn += 1;
    state.lastTurn = turn;
    const takenAt = elapsed();
    const { signals } = state;
    const taken = await step();
    if (taken.job !== undefined) return { job: taken.job, takenAt };
    state.takesAtOnce = 1;
    if (state.signals === signals) {
      state.ready = false;
      state.nextAt = taken.nextAt;
    } else {
      // What it has been told meanwhile may be later than this answer.
      dueNoLaterThan(state, taken.nextAt);
    }
    return undefined;
  }

  function slotOf(state: ServedLane): Slot {
    return {
      goesOn: () => mayGoOn(state),
      goOn: async (step) => {
        const taken = await takeBy(state, step);
        if (taken !== undefined) void start(state, taken, !lanes.isOpen(state));
      },
      rest: () => {
        unsettledAt = elapsed();
      },
    };
  }

  /**
   * True where the slot of a job that is done would go to the same lane if it came free.
   *
   * Not in a Redis that may be full, nor for a while after a job could not be settled: there no job can be taken by itself,
   * and it should not be as another ends, since nobody could settle it. What is under way gets done in the room that is left.
   */
  function mayGoOn(state: ServedLane): boolean {
    if (stopping || running.size + takes.size > concurrency) return false;
    if (!room.hasRoom() || elapsed() - unsettledAt < ERROR_PAUSE_MS) return false;
    // Without the job that ends.
    state.running -= 1;
    const isNext = isTurnOf(state, lanes, lanes.isOpen);
    state.running += 1;
    return isNext && !lanes.isLookDue();
  }

  function start(state: ServedLane, { job, takenAt }: Taking, look: boolean): Promise<boolean> {
    const abort = new AbortController();
    state.running += 1;
    locks.keep(state.lane, job, takenAt, (reason) => abort.abort(reason));
    const ended = runJob(state.lane, job, look, abort.signal, slotOf(state)).finally(() => {
      locks.release(job);
      state.running -= 1;
      running.delete(entry);
      // Its slot may have gone on already.
      if (hasFreeSlot()) wake();
    });
    const entry: Running = { abort, done: ended };
    running.add(entry);
    // Taken while `stop` was called.
    if (stopping) abort.abort(new ShutdownError('the worker stops'));
    return ended;
  }

  /** Sleeps until something happens, `ms` at most, and no longer than until the next delayed job is due. */
  async function pause(ms: number): Promise<void> {
    if (isAwake) return;
    if (hasFreeSlot()) markers.idle();
    const { promise, resolve } = Promise.withResolvers<void>();
    endPause = resolve;
    const timer = setTimeout(resolve, Math.max(1, Math.min(ms, lanes.nextDueAt() - now())));
    await promise;
    clearTimeout(timer);
  }

  async function stop(graceMs: number): Promise<void> {
    if (stopping) return;
    stopping = true;
    wake();
    markers.stop();
    await settled(graceMs);
    for (const { abort } of running) abort.abort(new ShutdownError('the worker stops'));
    await settled(RELEASE_MS);
    locks.stop();
  }

  /** Waits for the running jobs, `ms` at most. */
  async function settled(ms: number): Promise<void> {
    if (ms <= 0) return;
    let isOver = false;
    const { promise: over, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(() => {
      isOver = true;
      resolve();
    }, ms);
    // One that ends may have brought another.
    while (!isOver && running.size + looks.size > 0)
      await Promise.race([Promise.allSettled([...looks, ...[...running].map(({ done }) => done)]), over]);
    clearTimeout(timer);
  }

  return {
    run,
    stop,
    get inFlight() {
      return running.size;
    },
    get lastTurnAt() {
      return lastTurnAt;
    },
  };
}
