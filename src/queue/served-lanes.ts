import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { type Clock, SECOND, type Stopwatch } from '../time.ts';
import type { Fleet } from './fleet.ts';
import type { Gates } from './gates.ts';
import type { ObserveJob } from './job-events.ts';
import { appOfLane, INBOX_LANE, type Lane, type Lanes, laneOf } from './lane.ts';
import type { LaneState } from './lane-choice.ts';

/** How often every lane is looked at whatever the markers said: one that was popped by a dying worker is lost. */
const SWEEP_MS = 5 * SECOND;
/** How often lanes are looked into before a job is taken while markers are not waited for, since there is work at hand. */
const GLANCE_MS = SECOND;

/** The apps that this worker has credentials for; more may come while it runs. */
export interface ServedApps {
  has(appId: string): boolean;
  list(): readonly string[];
  /** Looks for more. */
  refresh(): Promise<void>;
}

/** A lane, and what this worker knows of it and has under way in it. */
export interface ServedLane extends LaneState {
  readonly lane: Lane;
  /** `undefined` for the inbox. */
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

/**
 * The lanes of this worker: that of each app it has met or has credentials for, and the inbox. Which of them may have work
 * is learned here by looking; markers and takes say it too.
 */
export interface ServedLanes extends Iterable<ServedLane> {
  /** True when jobs may be taken from it as they come. */
  isOpen(state: ServedLane): boolean;
  /** Serves the apps that are known by now, before any was looked for. */
  begin(): void;
  /** Now and then: looks for new apps and lanes, into all that seem empty, and asks for a look behind each closed gate. */
  sweep(): Promise<void>;
  /** Now and then: looks into the lanes that seem empty. Returns whether it did. */
  glance(): Promise<boolean>;
  /** True when there is something to look into, for which a slot must come free. */
  isLookDue(): boolean;
  /** Now and then: puts back jobs whose worker has died. */
  rescue(): Promise<void>;
  /** Lanes whose next delayed job is due by now have work. */
  markDue(): void;
  /** When the next delayed job of an open lane is due, as a Unix time in milliseconds; infinite when none is. */
  nextDueAt(): number;
}

export interface ServedLanesOptions {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly lanes: Lanes;
  readonly gates: Gates;
  readonly fleet: Pick<Fleet, 'serve'>;
  /**
   * Apps that this worker has credentials for. The lanes of others are left to workers that have them; this one only
   * looks into them now and then, so that a lane that nobody serves is noticed.
   */
  readonly apps: ServedApps;
  readonly rescueEveryMs: number;
  readonly now: Clock;
  readonly elapsed: Stopwatch;
  readonly observe: ObserveJob;
}

export function createServedLanes(options: ServedLanesOptions): ServedLanes {
  const { redis, keys, lanes, gates, fleet, apps, rescueEveryMs, now, elapsed, observe } = options;
  const served = new Map<string, ServedLane>();
  let sweptAt = Number.NEGATIVE_INFINITY;
  let glancedAt = Number.NEGATIVE_INFINITY;
  let rescuedAt = Number.NEGATIVE_INFINITY;

  function serve(name: string): void {
    if (served.has(name)) return;
    served.set(name, {
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
    });
  }

  function isOpen({ appId }: ServedLane): boolean {
    return appId === undefined || (apps.has(appId) && gates.closed(appId) === undefined);
  }

  /** A worker without the credential has closed the gate of an app that this one can serve. */
  async function openForServed({ appId }: ServedLane): Promise<void> {
    if (appId === undefined || !apps.has(appId) || gates.closed(appId)?.reason !== 'app-not-configured') return;
    if (await gates.open(appId)) observe({ type: 'gate-opened', appId });
  }

  function isGlanceDue(): boolean {
    return elapsed() - glancedAt >= GLANCE_MS;
  }

  async function glance(): Promise<void> {
    glancedAt = elapsed();
    const quiet = [...served.values()].filter((state) => !state.ready && isOpen(state));
    const seen = await lanes.glance(quiet.map(({ lane }) => lane.name));
    for (const [index, state] of quiet.entries()) {
      if (seen[index]?.ready === true) hasWork(state);
      dueNoLaterThan(state, seen[index]?.nextAt);
    }
  }

  return {
    [Symbol.iterator]: () => served.values(),
    isOpen,

    begin: () => {
      for (const name of [INBOX_LANE, ...apps.list().map(laneOf)]) serve(name);
    },

    sweep: async () => {
      if (elapsed() - sweptAt < SWEEP_MS) return;
      sweptAt = elapsed();
      await apps.refresh();
      await fleet.serve(apps.list());
      for (const appId of [...apps.list(), ...(await redis.smembers(keys.lanes))]) serve(laneOf(appId));
      for (const state of served.values()) {
        await openForServed(state);
        if (!isOpen(state) && !state.looking) state.lookDue = true;
      }
      await glance();
    },

    glance: async () => {
      if (!isGlanceDue()) return false;
      await glance();
      return true;
    },

    isLookDue: () => {
      if (isGlanceDue()) return true;
      for (const { lookDue } of served.values()) if (lookDue) return true;
      return false;
    },

    rescue: async () => {
      if (elapsed() - rescuedAt < rescueEveryMs) return;
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
    },

    markDue: () => {
      for (const state of served.values()) {
        if (state.nextAt === undefined || state.nextAt > now()) continue;
        state.nextAt = undefined;
        hasWork(state);
      }
    },

    nextDueAt: () => {
      let earliest = Number.POSITIVE_INFINITY;
      for (const state of served.values()) {
        if (state.nextAt !== undefined && state.nextAt < earliest && isOpen(state)) earliest = state.nextAt;
      }
      return earliest;
    },
  };
}

export function hasWork(state: ServedLane): void {
  state.ready = true;
  state.signals += 1;
}

/** The earlier time counts: it costs a take in vain at most, where the later one would leave a job waiting. */
export function dueNoLaterThan(state: LaneState, at: number | undefined): void {
  if (at !== undefined) state.nextAt = Math.min(state.nextAt ?? at, at);
}
