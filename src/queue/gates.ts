import { z } from 'zod';
import type { Failure } from '../failure.ts';
import type { RedisClient } from '../redis/connect.ts';
import type { RedisKeys } from '../redis/keys.ts';
import { takeLease } from '../redis/lease.ts';
import { type Clock, type Random, SECOND, type Stopwatch } from '../time.ts';
import { GATE_RULES, type GateReason, nextProbeAt } from './gate-rules.ts';

/** A closed gate: until when no job of the app is tried, and why. Shared by the fleet. */
export interface Gate {
  readonly appId: string;
  readonly reason: GateReason;
  readonly closedAt: number;
  /** From when one job may look whether the reason is gone. */
  readonly probeAt: number;
  readonly errcode?: number;
  readonly errmsg?: string;
  readonly detail?: string;
}

const gateSchema = z.object({
  appId: z.string(),
  reason: z.string().refine((code): code is GateReason => Object.hasOwn(GATE_RULES, code)),
  closedAt: z.number(),
  probeAt: z.number(),
  errcode: z.number().optional(),
  errmsg: z.string().optional(),
  detail: z.string().optional(),
});

/** How old this process's picture of the gates may be. */
const REFRESH_MS = SECOND;
/** One look at a closed gate at a time in the whole fleet, for as long as a probe may take. */
const LOOK_LEASE_MS = 15 * SECOND;

/**
 * The red lights of the apps.
 *
 * A gate opens when a job of its app gets through to WeChat, whatever becomes of that job; nobody opens it by the clock
 * alone.
 */
export interface Gates {
  /** Closes the gate, or puts the next probe off if it is closed already. Returns the gate, and whether it was open. */
  close(
    appId: string,
    reason: GateReason,
    failure: Failure,
  ): Promise<{ readonly gate: Gate; readonly wasOpen: boolean }>;
  /** Opens the gate. Returns true if it was closed. */
  open(appId: string): Promise<boolean>;
  /** This process's picture, a second old at most while `refresh` is called. */
  closed(appId: string): Gate | undefined;
  refresh(): Promise<void>;
  /** Reads all closed gates from Redis. */
  list(): Promise<Gate[]>;
  /** Returns true for the one worker that may look at a closed gate now. */
  mayLook(appId: string): Promise<boolean>;
}

export function createGates(
  redis: RedisClient,
  keys: RedisKeys,
  now: Clock,
  elapsed: Stopwatch,
  random: Random,
): Gates {
  let picture: ReadonlyMap<string, Gate> = new Map();
  let refreshedAt = Number.NEGATIVE_INFINITY;

  async function list(): Promise<Gate[]> {
    const fields = await redis.hvals(keys.gates);
    return fields.map(parseGate).filter((gate) => gate !== undefined);
  }

  async function reload(): Promise<void> {
    refreshedAt = elapsed();
    picture = new Map((await list()).map((gate) => [gate.appId, gate]));
  }

  return {
    list,
    closed: (appId) => picture.get(appId),
    refresh: async () => {
      if (elapsed() - refreshedAt >= REFRESH_MS) await reload();
    },
    close: async (appId, reason, { errcode, errmsg, detail }) => {
      const before = parseGate(await redis.hget(keys.gates, appId));
      const gate: Gate = {
        appId,
        reason,
        closedAt: before?.closedAt ?? now(),
        probeAt: nextProbeAt(reason, now(), random),
        ...(errcode === undefined ? {} : { errcode }),
        ...(errmsg === undefined ? {} : { errmsg }),
        ...(detail === undefined ? {} : { detail }),
      };
      await redis.hset(keys.gates, appId, JSON.stringify(gate));
      picture = new Map([...picture, [appId, gate]]);
      return { gate, wasOpen: before === undefined };
    },
    open: async (appId) => {
      picture = new Map([...picture].filter(([closed]) => closed !== appId));
      return (await redis.hdel(keys.gates, appId)) === 1;
    },
    mayLook: async (appId) => (await takeLease(redis, keys.probe(appId), LOOK_LEASE_MS)) !== undefined,
  };
}

function parseGate(text: string | null | undefined): Gate | undefined {
  if (text === null || text === undefined) return undefined;
  try {
    const gate = gateSchema.safeParse(JSON.parse(text)).data;
    return gate as Gate | undefined;
  } catch {
    return undefined;
  }
}
