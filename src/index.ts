/**
 * What a producer imports: a webhook handler that hands in media.
 *
 * @module
 */

import { orAbort } from './abort.ts';
import { DEFAULT_MEDIA_TTL_MS } from './media/deadline.ts';
import { type MediaJob, parseMediaJob } from './media/media-job.ts';
import type { OpenIdPolicy } from './media/open-id.ts';
import { type Admission, createDoor, type RejectedJob } from './queue/door.ts';
import { openLanes } from './queue/open-lanes.ts';
import { closeRedis, connectRedis, type RedisConfig, untilReady } from './redis/connect.ts';
import { createFleetClock } from './redis/fleet-clock.ts';
import { redisKeys } from './redis/keys.ts';
import { parseRedisUrl } from './redis/redis-url.ts';
import { Secret } from './secret.ts';
import { elapsed, MINUTE, SECOND } from './time.ts';

export type { MediaKind } from './media/kind.ts';
export { type MessageMediaOptions, mediaJobsFromMessage, type WeixinMessage } from './media/message-media.ts';
export type { Admission, MediaJob, RejectedJob };

/** Where a Sentinel or a node of a Cluster listens. */
export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

export interface MediaProducerOptions {
  /**
   * redis:// or rediss://, as the worker's REDIS_URL. With `sentinels` or `clusterNodes` only its user, password,
   * database and TLS count, and it may be absent.
   */
  readonly redisUrl?: string;
  /** Sentinels that are asked for the master, as the worker's REDIS_SENTINELS. Not together with `clusterNodes`. */
  readonly sentinels?: readonly RedisNode[];
  /** The name of that master, as the worker's REDIS_SENTINEL_MASTER. Default `mymaster`. */
  readonly sentinelMaster?: string;
  /** Some nodes of a Redis Cluster, as the worker's REDIS_CLUSTER_NODES. The prefix must be a hash tag in braces. */
  readonly clusterNodes?: readonly RedisNode[];
  /**
   * How many replicas must hold a job before it counts as accepted, as REDIS_WAIT_REPLICAS: with 1, a failover to a
   * replica loses none. Not together with `clusterNodes`. Default 0.
   */
  readonly waitReplicas?: number;
  /** As the worker's QUEUE_PREFIX. Default `{weixin-media}`. */
  readonly prefix?: string;
  /** As the worker's MEDIA_TTL_HOURS, in milliseconds. Default 72 h. */
  readonly mediaTtlMs?: number;
  /** Apps that may be handed in; others are rejected. Default: any, which leaves it to the worker. */
  readonly appIds?: readonly string[];
  /** The operator's key for pseudonyms of openIds. Without it they are dropped before anything is stored. */
  readonly openIdKey?: string;
  /** How long a call may take, in milliseconds. Default 2,000. */
  readonly timeoutMs?: number;
  /** Receives connection errors; the producer reconnects by itself. Default: they are dropped. */
  readonly onError?: (error: Error) => void;
}

export interface MediaProducer {
  /**
   * Queues one media, durably, before it resolves. A media that is known already is a duplicate, not an error.
   *
   * @throws InvalidMediaJobError when it is not a MediaJob v1; nothing was queued.
   * @throws QueueUnavailableError when Redis does not take it in time: answer 503, so that it is handed in again.
   */
  enqueue(job: MediaJob): Promise<'accepted' | 'duplicate'>;
  /**
   * Queues many. Those that are no MediaJob v1 are listed in `rejected`; the others are queued.
   *
   * @throws QueueUnavailableError as above; some may be queued by then, and repeating the call is harmless.
   */
  enqueueMany(jobs: readonly unknown[]): Promise<Admission>;
  /** Closes the connection. */
  close(): Promise<void>;
}

/** The job is not a MediaJob v1. `mistakes` has a sentence for each. */
export class InvalidMediaJobError extends Error {
  override readonly name = 'InvalidMediaJobError';
  readonly mistakes: readonly string[];

  constructor(mistakes: readonly string[]) {
    super(`not a MediaJob: ${mistakes.join('; ')}`);
    this.mistakes = mistakes;
  }
}

/** Redis did not take the job in time. The same job may be handed in again without harm. */
export class QueueUnavailableError extends Error {
  override readonly name = 'QueueUnavailableError';
}

const DEFAULT_TIMEOUT_MS = 2 * SECOND;
const SYNC_EVERY_MS = MINUTE;

/**
 * Opens a producer. Returns at once and connects in the background.
 *
 * @throws TypeError when the options don't say where Redis is. An address is not repeated, since it may hold a password.
 */
export function createMediaProducer(options: MediaProducerOptions): MediaProducer {
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const config = redisConfigOf(options);
  const { prefix } = config;
  const redis = connectRedis(config, 'hasty', 'weixin-media:producer', options.onError ?? (() => undefined));
  const clock = createFleetClock(redis, elapsed, Date.now);
  /** By the stopwatch. */
  let syncedAt = Number.NEGATIVE_INFINITY;
  /** How far the system clock was ahead of the stopwatch then: one of them stands still in a process that is suspended. */
  let syncedDriftMs = 0;
  const lanes = openLanes(redis, prefix, { lockMs: MINUTE, rescueEveryMs: MINUTE });
  const openId: OpenIdPolicy =
    options.openIdKey === undefined ? { type: 'none' } : { type: 'hmac', key: new Secret(options.openIdKey) };
  const door = createDoor({
    redis,
    keys: redisKeys(prefix),
    lanes,
    openId,
    waitReplicas: config.waitReplicas ?? 0,
    mediaTtlMs: options.mediaTtlMs ?? DEFAULT_MEDIA_TTL_MS,
    now: clock.now,
    ...(options.appIds === undefined ? {} : { apps: new Set(options.appIds) }),
  });

  async function enqueueMany(jobs: readonly unknown[]): Promise<Admission> {
    const limit = AbortSignal.timeout(timeoutMs);
    try {
      await untilReady(redis, limit);
      await orAbort(syncClock(), limit);
      return await orAbort(door.admit(jobs), limit);
    } catch (error) {
      throw new QueueUnavailableError(
        limit.aborted ? `Redis did not answer within ${timeoutMs} ms` : 'Redis did not take the job',
        {
          cause: error,
        },
      );
    }
  }

  /** A clock of our own that is behind would take fresh media for some of the future. */
  async function syncClock(): Promise<void> {
    const driftMs = Date.now() - elapsed();
    if (elapsed() - syncedAt < SYNC_EVERY_MS && Math.abs(driftMs - syncedDriftMs) < SECOND) return;
    try {
      await clock.sync();
      syncedAt = elapsed();
      syncedDriftMs = driftMs;
    } catch {
      // By our own clock, where Redis won't tell. That it is gone is told by what follows.
    }
  }

  return {
    enqueueMany,
    enqueue: async (job) => {
      // Told before Redis is asked: no push makes such a job better.
      // Whether it lies in the future is told by the clock of Redis.
      const parsed = parseMediaJob(job, Number.POSITIVE_INFINITY);
      if (!parsed.ok) throw new InvalidMediaJobError(parsed.mistakes);
      const { accepted, rejected } = await enqueueMany([job]);
      const [mistake] = rejected;
      if (mistake !== undefined) throw new InvalidMediaJobError(mistake.mistakes);
      return accepted === 1 ? 'accepted' : 'duplicate';
    },
    close: async () => {
      await lanes.close().catch(() => undefined);
      await closeRedis(redis);
    },
  };
}

function redisConfigOf(options: MediaProducerOptions): RedisConfig {
  const { redisUrl, sentinels, clusterNodes, sentinelMaster = 'mymaster', prefix = '{weixin-media}' } = options;
  const { waitReplicas = 0 } = options;
  if (sentinels !== undefined && clusterNodes !== undefined)
    throw new TypeError('sentinels, clusterNodes: only one of them is expected');
  for (const [name, nodes] of Object.entries({ sentinels, clusterNodes })) {
    if (nodes !== undefined && !(Array.isArray(nodes) && nodes.length > 0 && nodes.every(isNode)))
      throw new TypeError(`${name}: a list of { host, port } is expected`);
  }
  if (clusterNodes !== undefined && !/\{[^}]+\}/.test(prefix))
    throw new TypeError('prefix: a hash tag in braces is expected, since there are clusterNodes');
  if (!Number.isInteger(waitReplicas) || waitReplicas < 0 || (waitReplicas > 0 && clusterNodes !== undefined))
    throw new TypeError('waitReplicas: a whole number is expected, 0 with clusterNodes');
  // Without an address there is no user and no password either.
  const url = parseRedisUrl(redisUrl ?? (sentinels === undefined && clusterNodes === undefined ? '' : 'redis:///'));
  if (url === undefined) throw new TypeError('redisUrl: a redis:// or rediss:// address is expected');
  return {
    url,
    prefix,
    sentinelMaster,
    waitReplicas,
    ...(sentinels === undefined ? {} : { sentinels }),
    ...(clusterNodes === undefined ? {} : { clusterNodes }),
  };
}

function isNode(node: Partial<RedisNode> | null | undefined): boolean {
  const { host, port } = node ?? {};
  return (
    typeof host === 'string' && host !== '' && Number.isInteger(port) && port !== undefined && port > 0 && port < 65_536
  );
}
