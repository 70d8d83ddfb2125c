import { orAbort } from '../abort.ts';
import { announceTo, createOutbox, type Outbox } from '../catalog/outbox.ts';
import type { Config } from '../config.ts';
import { createDeadLetterIndex, type DeadLetterIndex } from '../dead-letter/dead-letter-index.ts';
import { createDeadLetters, type DeadLetters } from '../dead-letter/dead-letters.ts';
import { createArchivedMarkers } from '../queue/archived-marker.ts';
import { createDoor, type Door } from '../queue/door.ts';
import { createFleet } from '../queue/fleet.ts';
import { createGates } from '../queue/gates.ts';
import type { Lanes } from '../queue/lane.ts';
import { openLanes } from '../queue/open-lanes.ts';
import { createThroughput } from '../queue/throughput.ts';
import {
  closeRedis,
  connectRedis,
  DatabaseRefusedError,
  describeRedis,
  type RedisClient,
  untilReady,
} from '../redis/connect.ts';
import { createFleetClock } from '../redis/fleet-clock.ts';
import { type RedisKeys, redisKeys } from '../redis/keys.ts';
import type { ArchiveStore } from '../store/archive-store.ts';
import { createS3Client, type StoreConfig } from '../store/s3-client.ts';
import { createS3Store } from '../store/s3-store.ts';
import { elapsed, MINUTE, SECOND } from '../time.ts';
import { createAccountBook } from '../weixin/credentials/account-book.ts';
import { createAuthorizations } from '../weixin/credentials/authorizations.ts';
import { CommandError } from './command-error.ts';

/** How long a command waits for Redis. */
const REDIS_TIMEOUT_MS = 5 * SECOND;

/** What commands need of the queue. */
export interface OpenQueue extends AsyncDisposable {
  readonly redis: RedisClient;
  readonly keys: RedisKeys;
  readonly lanes: Lanes;
  readonly door: Door;
  readonly gates: ReturnType<typeof createGates>;
  readonly markers: ReturnType<typeof createArchivedMarkers>;
  readonly fleet: ReturnType<typeof createFleet>;
  readonly throughput: ReturnType<typeof createThroughput>;
  readonly deadLetterIndex: DeadLetterIndex;
  readonly outbox: Outbox;
}

/** Connects to the queue for a command. @throws CommandError when Redis does not answer. */
export async function openQueue(config: Config): Promise<OpenQueue> {
  let lastError: Error | undefined;
  const redis = connectRedis(config.redis, 'hasty', 'weixin-media:cli', (error) => {
    lastError = error;
  });
  try {
    await untilReady(redis, AbortSignal.timeout(REDIS_TIMEOUT_MS));
  } catch (error) {
    redis.disconnect();
    if (error instanceof DatabaseRefusedError) lastError = error;
    const why = lastError === undefined ? 'no answer' : lastError.message;
    throw new CommandError(`Redis at ${describeRedis(config.redis)} can't be reached (${why}): check REDIS_URL`);
  }
  const keys = redisKeys(config.redis.prefix);
  const clock = createFleetClock(redis, elapsed, Date.now);
  // By our own clock, where Redis won't tell. That it is gone is told by what the command asks it for.
  await orAbort(clock.sync(), AbortSignal.timeout(REDIS_TIMEOUT_MS)).catch(() => undefined);
  const { now } = clock;
  const lanes = openLanes(redis, config.redis.prefix, { lockMs: MINUTE, rescueEveryMs: MINUTE });
  const { media, accounts, components } = config;
  const { waitReplicas = 0 } = config.redis;
  const apps = createAccountBook(accounts, components, createAuthorizations(redis, keys));
  await orAbort(apps.refresh(), AbortSignal.timeout(REDIS_TIMEOUT_MS));
  return {
    redis,
    keys,
    lanes,
    door: createDoor({ redis, keys, lanes, mediaTtlMs: media.ttlMs, openId: media.openId, apps, waitReplicas, now }),
    gates: createGates(redis, keys, now, elapsed, Math.random),
    markers: createArchivedMarkers(redis, keys, now),
    fleet: createFleet(redis, keys, now),
    throughput: createThroughput(redis, keys, now),
    deadLetterIndex: createDeadLetterIndex(redis, keys, now),
    outbox: createOutbox(redis, keys, now),
    [Symbol.asyncDispose]: async () => {
      await lanes.close().catch(() => undefined);
      await closeRedis(redis);
    },
  };
}

export interface OpenStore extends Disposable {
  readonly store: ArchiveStore;
  readonly deadLetters: DeadLetters;
}

/** Opens the bucket for a command. */
export function openStore(
  config: StoreConfig,
  { deadLetterIndex, outbox }: Pick<OpenQueue, 'deadLetterIndex' | 'outbox'>,
): OpenStore {
  const client = createS3Client(config, 16);
  const store = createS3Store({ client, bucket: config.bucket, partSizeBytes: config.partSizeBytes });
  const deadLetters = createDeadLetters(store, deadLetterIndex, announceTo(outbox), Date.now);
  return { store, deadLetters, [Symbol.dispose]: () => client.destroy() };
}
