import { randomUUID } from 'node:crypto';
import { within } from '../lifecycle.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { type Clock, SECOND, type Stopwatch } from '../time.ts';
import type { Fleet } from './fleet.ts';
import type { Gates } from './gates.ts';
import type { ObserveJob } from './job-events.ts';
import { appOfLane, INBOX_LANE, type Lane, type Lanes, laneOf, type TakenJob } from './lane.ts';
import { chooseLane, type LaneState } from './lane-choice.ts';
import type { LockKeeper } from './lock-keeper.ts';
import { type RunJob, ShutdownError } from './run-job.ts';

/** How often every lane is looked at whatever the markers said: one that was popped by a dying worker is lost. */
const SWEEP_MS = 5 * SECOND;
/** How often lanes are looked into before a job is taken while markers are not waited for, since there is work at hand. */
const GLANCE_MS = SECOND;
/** The longest a wait for markers lasts. */
const MARKER_WAIT_SECONDS = 5;
/** After an error of Redis. */
const ERROR_PAUSE_MS = SECOND;
/** Takes under way in one lane, at most: more at once bring little, and find nothing where a lane comes to its end. */
const MAX_TAKES_AT_ONCE = 8;
/** For aborted attempts to put their jobs back. */
const RELEASE_MS = 5 * SECOND;

/** The apps that this worker has credentials for; more may come while it runs. */
export interface ServedApps {
  has(appId: string): boolean;
  list(): readonly string[];
  /** Looks for more. */
  refresh(): Promise<void>;
}

export interface DispatcherOptions {
  readonly redis: RedisClient;
  /** A connection of its own: it waits with blocking commands. */
  readonly blocking: RedisClient;
  readonly keys: RedisKeys;
  readonly lanes: Lanes;
  readonly gates: Gates;
  readonly fleet: Pick<Fleet, 'serve' | 'isServed'>;
  readonly locks: LockKeeper;
  readonly runJob: RunJob;
  /**
   * Apps that this worker has credentials for. The lanes of others are left to workers that have them; this one only
   * looks into them now and then, so that a lane that nobody serves is noticed.
   */
  readonly apps: ServedApps;
  readonly concurrency: number;
  readonly rescueEveryMs: number;
  readonly now: Clock;
  readonly elapsed: Stopwatch;
  readonly observe: ObserveJob;
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

interface Served extends LaneState {
  readonly lane: Lane;
  readonly appId: string | undefined;
  /** True when the sweep has found its gate closed, until this worker has tried to look behind it. */
  lookDue: boolean;
  /** True while this worker looks behind its closed gate. */
  looking: boolean;
  /** Takes under way. Each counts as a running job already. */
  taking: number;
  /** How often it has been told to have work. */
  signals: number;
  /** How many of them there may be: more with each that brings a job, one after one that brings none. */
  takesAtOnce: number;
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
  const { redis, blocking, keys, lanes, gates, fleet, locks, runJob, concurrency, now, elapsed, observe } = options;
  const served = new Map<string, Served>();
  const running = new Set<Running>();
  const looks = new Set<Promise<void>>();
  const takes = new Set<Promise<void>>();
  let takeFaultAt = Number.NEGATIVE_INFINITY;
  const workerId = randomUUID();
  let turn = 0;
  let sweptAt = Number.NEGATIVE_INFINITY;
  let glancedAt = Number.NEGATIVE_INFINITY;
  let rescuedAt = Number.NEGATIVE_INFINITY;
  let lastTurnAt = elapsed();
  let stopping = false;
  /** Set by whatever may have changed what there is to do, until the loop has come round. */
  let isAwake = false;
  let endPause = (): void => undefined;
  /** Tells the watcher that there may be nothing left to do. */
  let onIdle = (): void => undefined;

  function wake(): void {
    isAwake = true;
    endPause();
  }

  async function run(): Promise<void> {
    serve(INBOX_LANE);
    for (const appId of options.apps.list()) serve(laneOf(appId));
    const watching = watchMarkers();
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
    if (elapsed() - rescuedAt >= options.rescueEveryMs) await rescue();
    if (elapsed() - sweptAt >= SWEEP_MS) await sweep();
    for (const state of served.values()) {
      if (state.nextAt === undefined || state.nextAt > now()) continue;
      state.nextAt = undefined;
      hasWork(state);
    }
    await lookBehindGates();
    if (stopping) return;
    const state = await chooseNext();
    if (state !== undefined) takeFrom(state);
    else await pause(SECOND);
  }

  function hasFreeSlot(): boolean {
    return running.size + takes.size < concurrency;
  }

  async function chooseNext(): Promise<Served | undefined> {
    if (!hasFreeSlot()) return undefined;
    const state = chooseLane(served.values(), mayTakeFrom);
    if (state === undefined || elapsed() - glancedAt < GLANCE_MS) return state;
    await glance();
    return chooseLane(served.values(), mayTakeFrom);
  }

  function mayTakeFrom(state: Served): boolean {
    return state.taking < state.takesAtOnce && isOpen(state);
  }

  function isOpen({ appId }: Served): boolean {
    return appId === undefined || (options.apps.has(appId) && gates.closed(appId) === undefined);
  }

  /** One worker at a time looks behind a closed gate; into a lane that others serve, one that can't serve it never. */
  async function isOursToLook(appId: string): Promise<boolean> {
    if (!options.apps.has(appId) && (await fleet.isServed(appId))) return false;
    return gates.mayLook(appId);
  }

  /** A worker without the credential has closed the gate of an app that this one can serve. */
  async function openForServed({ appId }: Served): Promise<void> {
    if (appId === undefined || !options.apps.has(appId) || gates.closed(appId)?.reason !== 'app-not-configured') return;
    if (await gates.open(appId)) observe({ type: 'gate-opened', appId });
  }

  function serve(name: string): Served {
    const known = served.get(name);
    if (known !== undefined) return known;
    const state: Served = {
      // Asked for each time: a lane whose connection broke as it was opened is opened anew.
      get lane() {
        return lanes.lane(name);
      },
      appId: appOfLane(name),
      ready: false,
      nextAt: undefined,
      running: 0,
      lastTurn: 0,
      lookDue: false,
      looking: false,
      taking: 0,
      signals: 0,
      takesAtOnce: 1,
    };
    served.set(name, state);
    return state;
  }

  /** Looks for new lanes, glances into all that seem empty, and asks for a look behind each closed gate. */
  async function sweep(): Promise<void> {
    sweptAt = elapsed();
    await options.apps.refresh();
    await fleet.serve(options.apps.list());
    for (const appId of await redis.smembers(keys.lanes)) serve(laneOf(appId));
    for (const state of served.values()) {
      await openForServed(state);
      if (!isOpen(state) && !state.looking) state.lookDue = true;
    }
    await glance();
  }

  /** Finds out which lanes have work, of those that seem to have none. */
  async function glance(): Promise<void> {
    glancedAt = elapsed();
    const quiet = [...served.values()].filter((state) => !state.ready && isOpen(state));
    const seen = await lanes.glance(quiet.map(({ lane }) => lane.name));
    for (const [index, state] of quiet.entries()) {
      if (seen[index]?.ready === true) hasWork(state);
      dueNoLaterThan(state, seen[index]?.nextAt);
    }
  }

  /** As soon as a slot is free: where long jobs take them all, a sweep may never meet one. */
  async function lookBehindGates(): Promise<void> {
    for (const state of served.values()) {
      if (!state.lookDue || !mayLookNow(state)) continue;
      state.lookDue = false;
      if (!isOpen(state) && (await isOursToLook(state.appId))) look(state);
    }
  }

  async function rescue(): Promise<void> {
    rescuedAt = elapsed();
    for (const state of served.values()) {
      const jobIds = await state.lane.rescue().catch((error: unknown) => {
        observe({ type: 'fault', where: 'dispatcher', error });
        return [];
      });
      if (jobIds.length === 0) continue;
      hasWork(state);
      observe({ type: 'rescued', lane: state.lane.name, jobIds });
    }
  }

  /** Begins to take a job. Several at a time share a way to Redis and back, which is most of what a take costs. */
  function takeFrom(state: Served): void {
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

  async function takeAndStart(state: Served): Promise<void> {
    try {
      const taken = await take(state);
      state.takesAtOnce = taken === undefined ? 1 : Math.min(state.takesAtOnce + 1, MAX_TAKES_AT_ONCE);
      // The gate may have been closed meanwhile.
      if (taken !== undefined) void start(state, taken, !isOpen(state));
    } catch (error) {
      rest(state, error);
    }
  }

  /** Leaves a lane alone for a while after an error, which is told once for all lanes: they may be many, and take no notice. */
  function rest(state: Served, error: unknown): void {
    state.takesAtOnce = 1;
    state.ready = false;
    state.nextAt = now() + ERROR_PAUSE_MS;
    if (elapsed() - takeFaultAt < ERROR_PAUSE_MS) return;
    takeFaultAt = elapsed();
    observe({ type: 'fault', where: 'dispatcher', error });
  }

  function mayLookNow(state: Served): state is Served & { readonly appId: string } {
    return state.appId !== undefined && !state.looking && hasFreeSlot();
  }

  function look(state: Served): void {
    const ended = lookBehind(state).finally(() => looks.delete(ended));
    looks.add(ended);
  }

  /** Looks behind a closed gate, for as long as the jobs it finds must run now: a probe, or the last moments of a media. */
  async function lookBehind(state: Served): Promise<void> {
    state.looking = true;
    try {
      for (let again = true; again; again = !stopping && !isOpen(state)) {
        const taken = await take(state);
        if (taken === undefined || !(await start(state, taken, true))) return;
      }
    } catch (error) {
      observe({ type: 'fault', where: 'dispatcher', error });
    } finally {
      state.looking = false;
    }
  }

  async function take(state: Served): Promise<Taking | undefined> {
    turn += 1;
    state.lastTurn = turn;
    const takenAt = elapsed();
    const { signals } = state;
    const taken = await state.lane.take(`${workerId}:${turn}`);
    if (taken.job !== undefined) return { job: taken.job, takenAt };
    if (state.signals === signals) {
      state.ready = false;
      state.nextAt = taken.nextAt;
    } else {
      // What it has been told meanwhile may be later than this answer.
      dueNoLaterThan(state, taken.nextAt);
    }
    return undefined;
  }

  function start(state: Served, { job, takenAt }: Taking, look: boolean): Promise<boolean> {
    const abort = new AbortController();
    state.running += 1;
    locks.keep(state.lane, job, takenAt, (reason) => abort.abort(reason));
    const ended = runJob(state.lane, job, look, abort.signal).finally(() => {
      locks.release(job);
      state.running -= 1;
      running.delete(entry);
      wake();
    });
    const entry: Running = { abort, done: ended };
    running.add(entry);
    // Taken while `stop` was called.
    if (stopping) abort.abort(new ShutdownError('the worker stops'));
    return ended;
  }

  /** Waits for markers while there are free slots and nothing is known to be ready. */
  async function watchMarkers(): Promise<void> {
    while (!stopping) {
      const idle = [...served.values()].filter((state) => !state.ready && isOpen(state));
      const busy = !hasFreeSlot() || [...served.values()].some((state) => state.ready && isOpen(state));
      if (busy || idle.length === 0) {
        await untilIdle();
        continue;
      }
      try {
        const byMarker = new Map(idle.map((state) => [state.lane.markerKey, state]));
        const popped = await blocking.bzpopmin([...byMarker.keys()], MARKER_WAIT_SECONDS);
        if (popped === null) continue;
        const [key, , score] = popped;
        const state = byMarker.get(key);
        if (state === undefined) continue;
        // A marker of a delayed job bears the time it is due; any other says now.
        if (Number(score) <= now()) hasWork(state);
        else dueNoLaterThan(state, Number(score));
        wake();
      } catch (error) {
        if (stopping) return;
        observe({ type: 'fault', where: 'markers', error });
        await delay(ERROR_PAUSE_MS);
      }
    }
  }

  async function untilIdle(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    onIdle = resolve;
    const timer = setTimeout(resolve, BUSY_POLL_MS);
    await promise;
    clearTimeout(timer);
  }

  /** Sleeps until something happens, `ms` at most, and no longer than until the next delayed job is due. */
  async function pause(ms: number): Promise<void> {
    const due = Math.min(
      ...[...served.values()].filter(isOpen).map(({ nextAt }) => nextAt ?? Number.POSITIVE_INFINITY),
    );
    if (isAwake) return;
    if (hasFreeSlot()) onIdle();
    const { promise, resolve } = Promise.withResolvers<void>();
    endPause = resolve;
    const timer = setTimeout(resolve, Math.max(1, Math.min(ms, due - now())));
    await promise;
    clearTimeout(timer);
  }

  async function stop(graceMs: number): Promise<void> {
    if (stopping) return;
    stopping = true;
    wake();
    blocking.disconnect();
    await settled(graceMs);
    for (const { abort } of running) abort.abort(new ShutdownError('the worker stops'));
    await settled(RELEASE_MS);
    locks.stop();
  }

  /** Waits for the running jobs, `ms` at most. */
  async function settled(ms: number): Promise<void> {
    if (running.size + looks.size === 0 || ms <= 0) return;
    const { promise: timeout, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    await Promise.race([Promise.allSettled([...looks, ...[...running].map(({ done }) => done)]), timeout]);
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

function hasWork(state: Served): void {
  state.ready = true;
  state.signals += 1;
}

/** The earlier time counts: it costs a take in vain at most, where the later one would leave a job waiting. */
function dueNoLaterThan(state: LaneState, at: number | undefined): void {
  if (at !== undefined) state.nextAt = Math.min(state.nextAt ?? at, at);
}

/** How soon the watcher looks again after it found the worker busy, where nobody tells it. */
const BUSY_POLL_MS = 20;

function delay(ms: number): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  setTimeout(resolve, ms);
  return promise;
}
