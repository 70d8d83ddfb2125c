/**
 * What a producer imports: a webhook handler that hands in media.
 *
 * @module
 */

import { orAbort } from './abort.ts';
import { DEFAULT_MEDIA_TTL_MS } from './media/deadline.ts';
import { describeIssue, type MediaJob, type MediaVariant, mediaJobSchema, parseMediaJob } from './media/media-job.ts';
import type { OpenIdPolicy } from './media/open-id.ts';
import { type Admission, createDoor, type RejectedJob } from './queue/door.ts';
import { createMediaStatusReader, type MediaStatus } from './queue/media-status.ts';
import { openLanes } from './queue/open-lanes.ts';
import { checkProducerOptions } from './queue/producer-options.ts';
import { isCluster, mistakeOfConnection } from './redis/borrowed-redis.ts';
import { closeRedis, connectRedis, type RedisClient, type RedisConfig, untilReady } from './redis/connect.ts';
import { createFleetClock } from './redis/fleet-clock.ts';
import { redisKeys } from './redis/keys.ts';
import { parseRedisUrl } from './redis/redis-url.ts';
import { Secret } from './secret.ts';
import { elapsed, MINUTE, SECOND } from './time.ts';

export type { MediaKind } from './media/kind.ts';
export { type MessageMediaOptions, mediaJobsFromMessage, type WeixinMessage } from './media/message-media.ts';
export type { Admission, MediaJob, MediaStatus, MediaVariant, RejectedJob };

/** Where a Sentinel or a node of a Cluster listens. */
export interface RedisNode {
  readonly host: string;
  readonly port: number;
}

export interface MediaProducerOptions {
  /**
   * A `Redis` or `Cluster` of ioredis that the caller has opened, in place of `redisUrl`, `sentinels` and `clusterNodes`.
   *
   * Whatever its settings are, calls end in time; what was sent may still be carried out when Redis is back, which is
   * harmless. Refused are those that BullMQ can't work with: `keyPrefix`, `stringNumbers`, `replyMapping: 'resp3'`.
   * `close` leaves it open. Its errors are told by itself, not to `onError`. With `waitReplicas`, other commands on it
   * wait too, up to a second.
   */
  readonly connection?: RedisClient;
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
   * replica loses none. Up to 10. Not together with `clusterNodes`. Default 0.
   */
  readonly waitReplicas?: number;
  /** As the worker's QUEUE_PREFIX. Default `{weixin-media}`. */
  readonly prefix?: string;
  /** As the worker's MEDIA_TTL_HOURS, in milliseconds from 36,000. Default 72 h. */
  readonly mediaTtlMs?: number;
  /** Apps that may be handed in, one at least; others are rejected. Default: all, which leaves it to the worker. */
  readonly appIds?: readonly string[];
  /** The operator's key for pseudonyms of openIds, of 16 characters or more. Without it they are dropped before anything is stored. */
  readonly openIdKey?: string;
  /** How long a call may take, in whole milliseconds from 1. Default 2,000. */
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
   * @throws ProducerClosedError after `close`, as all calls do.
   */
  enqueue(job: MediaJob): Promise<'accepted' | 'duplicate'>;
  /**
   * Queues many. Those that are no MediaJob v1 are listed in `rejected`; the others are queued.
   *
   * Up to some 5,000 are reasonable within the default time: Redis on the same machine took some 15,000 a second. When the
   * time is up the call ends, and so does the queueing, after 500 more at most.
   *
   * @throws QueueUnavailableError as above; some may be queued by then, and repeating the call is harmless.
   * @throws TypeError when it is no array.
   */
  enqueueMany(jobs: readonly unknown[]): Promise<Admission>;
  /**
   * Tells where a media is, as far as Redis knows; the bucket is not asked.
   *
   * @throws TypeError when these are no ids.
   * @throws QueueUnavailableError when Redis does not tell in time.
   */
  status(appId: string, mediaId: string, options?: { readonly variant?: MediaVariant }): Promise<MediaStatus>;
  /** Takes no more calls, ends those that wait for Redis, and closes the connection unless it is the caller's own. Ends also when Redis is away. */
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

/** Redis did not take the job, or did not answer, in time. The same job may be handed in again without harm. */
export class QueueUnavailableError extends Error {
  override readonly name = 'QueueUnavailableError';
}

/** The producer was closed before or while it was called. Another one may be handed the same job without harm. */
export class ProducerClosedError extends Error {
  override readonly name = 'ProducerClosedError';
}

const DEFAULT_TIMEOUT_MS = 2 * SECOND;
const SYNC_EVERY_MS = MINUTE;
const CLOSED = 'the producer has been closed';
const DEFAULT_PREFIX = '{weixin-media}';
/** What a media goes by. */
const mediaNameSchema = mediaJobSchema.pick({ appId: true, mediaId: true, variant: true });

/**
 * Opens a producer. Returns at once and connects in the background.
 *
 * @throws TypeError when an option is none, or they don't say where Redis is. No value is repeated: it may be a secret.
 * @throws Error on a Node.js that is too old.
 */
export function createMediaProducer(options: MediaProducerOptions): MediaProducer {
  // It would fail at the first call, with a media to lose.
  if (typeof Promise.withResolvers !== 'function')
    throw new Error(`Node.js 22.19 or later is needed, and this is ${process.version}`);
  checkProducerOptions(options);
  const timeoutMs = options.timeoutMs ?? DEFAULT_TIMEOUT_MS;
  const mediaTtlMs = options.mediaTtlMs ?? DEFAULT_MEDIA_TTL_MS;
  const { redis, prefix, waitReplicas, disconnect } = openRedis(options);
  const closing = new AbortController();
  const clock = createFleetClock(redis, elapsed, Date.now);
  /** By the stopwatch. */
  let syncedAt = Number.NEGATIVE_INFINITY;
  /** How far the system clock was ahead of the stopwatch then: one of them stands still in a process that is suspended. */
  let syncedDriftMs = 0;
  const lanes = openLanes(redis, prefix, { lockMs: MINUTE, rescueEveryMs: MINUTE });
  const keys = redisKeys(prefix);
  const openId: OpenIdPolicy =
    options.openIdKey === undefined ? { type: 'none' } : { type: 'hmac', key: new Secret(options.openIdKey) };
  const door = createDoor({
    redis,
    keys,
    lanes,
    openId,
    waitReplicas,
    mediaTtlMs,
    now: clock.now,
    ...(options.appIds === undefined ? {} : { apps: new Set(options.appIds) }),
  });
  const readStatus = createMediaStatusReader({ redis, keys, lanes, mediaTtlMs, now: clock.now });
  let mayBeDeaf = false;
  let listening: Promise<void> | undefined;

  /** Asks Redis something, within the time that a call has. */
  async function ask<T>(question: (limit: AbortSignal) => Promise<T>, refused: string): Promise<T> {
    const limit = AbortSignal.timeout(timeoutMs);
    try {
      await orAbort(untilListening(), limit);
      return await orAbort(question(limit), limit);
    } catch (error) {
      if (closing.signal.aborted) throw new ProducerClosedError(CLOSED);
      if (isMistake(error)) throw error;
      mayBeDeaf ||= limit.aborted;
      const message = limit.aborted ? `Redis did not answer within ${timeoutMs} ms` : refused;
      throw new QueueUnavailableError(message, { cause: error });
    }
  }

  /**
   * Resolves when Redis can be asked. One wait for all calls, and nothing else is sent meanwhile: what a connection holds
   * for a Redis that is away or deaf would know no bounds, whatever its settings are.
   */
  function untilListening(): Promise<void> {
    listening ??= listen().finally(() => {
      listening = undefined;
    });
    return listening;
  }

  async function listen(): Promise<void> {
    closing.signal.throwIfAborted();
    await untilReady(redis, closing.signal);
    if (!mayBeDeaf) return;
    // A connection that breaks, or a Redis that refuses, is told by what follows.
    await orAbort(redis.ping(), closing.signal).catch(() => undefined);
    mayBeDeaf = false;
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

  async function enqueueMany(jobs: readonly unknown[]): Promise<Admission> {
    if (!Array.isArray(jobs)) throw new TypeError('jobs: an array is expected');
    if (closing.signal.aborted) throw new ProducerClosedError(CLOSED);
    // A message without media needs no Redis.
    if (jobs.length === 0) return { accepted: 0, duplicates: 0, rejected: [] };
    const admit = async (limit: AbortSignal): Promise<Admission> => {
      await orAbort(syncClock(), limit);
      return door.admit(jobs, limit);
    };
    return ask(admit, 'Redis did not take the job');
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
    status: async (appId, mediaId, { variant } = {}) => {
      const name = mediaNameSchema.safeParse({ appId, mediaId, variant });
      if (!name.success) throw new TypeError(name.error.issues.map(describeIssue).join('; '));
      return ask(() => readStatus(name.data), 'Redis did not tell');
    },
    close: async () => {
      closing.abort(new Error(CLOSED));
      await orAbort(lanes.close(), AbortSignal.timeout(SECOND)).catch(() => undefined);
      await disconnect();
    },
  };
}

/** True of what the language throws for a defect of a program. A SyntaxError is not: that is JSON that lay in Redis. */
function isMistake(error: unknown): boolean {
  return [TypeError, RangeError, ReferenceError].some((mistake) => error instanceof mistake);
}

interface OpenedRedis {
  readonly redis: RedisClient;
  readonly prefix: string;
  readonly waitReplicas: number;
  readonly disconnect: () => Promise<void>;
}

function openRedis(options: MediaProducerOptions): OpenedRedis {
  const { connection, onError = () => undefined } = options;
  if (connection === undefined) {
    const config = redisConfigOf(options);
    const redis = connectRedis(config, 'hasty', 'weixin-media:producer', onError);
    const { prefix, waitReplicas = 0 } = config;
    return { redis, prefix, waitReplicas, disconnect: () => closeRedis(redis) };
  }
  for (const name of ['redisUrl', 'sentinels', 'clusterNodes'] as const) {
    if (options[name] !== undefined) throw new TypeError(`connection, ${name}: only one of them is expected`);
  }
  const mistake = mistakeOfConnection(connection);
  if (mistake !== undefined) throw new TypeError(`connection: ${mistake}`);
  const { prefix = DEFAULT_PREFIX, waitReplicas = 0 } = options;
  checkForCluster(isCluster(connection), prefix, waitReplicas, 'the connection is a Cluster');
  return { redis: connection, prefix, waitReplicas, disconnect: async () => undefined };
}

function redisConfigOf(options: MediaProducerOptions): RedisConfig {
  const { redisUrl, sentinels, clusterNodes, sentinelMaster = 'mymaster', prefix = DEFAULT_PREFIX } = options;
  const { waitReplicas = 0 } = options;
  if (sentinels !== undefined && clusterNodes !== undefined)
    throw new TypeError('sentinels, clusterNodes: only one of them is expected');
  for (const [name, nodes] of Object.entries({ sentinels, clusterNodes })) {
    if (nodes !== undefined && !(Array.isArray(nodes) && nodes.length > 0 && nodes.every(isNode)))
      throw new TypeError(`${name}: a list of { host, port } is expected`);
  }
  checkForCluster(clusterNodes !== undefined, prefix, waitReplicas, 'there are clusterNodes');
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

/** @throws TypeError */
function checkForCluster(isCluster: boolean, prefix: string, waitReplicas: number, why: string): void {
  if (isCluster && !/\{[^}]+\}/.test(prefix))
    throw new TypeError(`prefix: a hash tag in braces is expected, since ${why}`);
  if (isCluster && waitReplicas > 0) throw new TypeError(`waitReplicas: 0 is expected, since ${why}`);
}

function isNode(node: Partial<RedisNode> | null | undefined): boolean {
  const { host, port } = node ?? {};
  return (
    typeof host === 'string' && host !== '' && Number.isInteger(port) && port !== undefined && port > 0 && port < 65_536
  );
}
