import { orAbort, untilAborted } from '../src/abort.ts';
import { announceTo, createOutbox } from '../src/catalog/outbox.ts';
import type { Config } from '../src/config.ts';
import { createDeadLetterIndex } from '../src/dead-letter/dead-letter-index.ts';
import { createDeadLetters } from '../src/dead-letter/dead-letters.ts';
import { createForward } from '../src/ingest/forward.ts';
import { type HttpServer, type HttpServerOptions, startHttpServer } from '../src/ingest/http-server.ts';
import { createPatience } from '../src/ingest/patience.ts';
import { platformGates } from '../src/ingest/platform-gates.ts';
import { pushRoutes } from '../src/ingest/push-routes.ts';
import { createWayIn, HAND_IN_TIMEOUT_MS } from '../src/ingest/way-in.ts';
import { within } from '../src/lifecycle.ts';
import type { Logger } from '../src/log.ts';
import { createCodeRedeemer } from '../src/operate/code-redeemer.ts';
import { createIngestMetrics } from '../src/operate/ingest-metrics.ts';
import { awaitRedis, clockKeeper } from '../src/operate/redis-at-start.ts';
import { createArchivedMarkers } from '../src/queue/archived-marker.ts';
import { createBatchingDoor } from '../src/queue/batching-door.ts';
import { createDoor } from '../src/queue/door.ts';
import { HEARTBEAT_MS } from '../src/queue/fleet.ts';
import { createGates } from '../src/queue/gates.ts';
import { openLanes } from '../src/queue/open-lanes.ts';
import { closeRedis, connectRedis, describeRedis } from '../src/redis/connect.ts';
import { createFleetClock } from '../src/redis/fleet-clock.ts';
import { redisKeys } from '../src/redis/keys.ts';
import { takePulse } from '../src/redis/pulse.ts';
import { createS3Client } from '../src/store/s3-client.ts';
import { createS3Store } from '../src/store/s3-store.ts';
import { elapsed, SECOND } from '../src/time.ts';
import { VERSION } from '../src/version.ts';
import { createApiHosts } from '../src/weixin/api-hosts.ts';
import type { PushSettings } from '../src/weixin/credentials/account.ts';
import { createAccountBook } from '../src/weixin/credentials/account-book.ts';
import { createAuthorizations } from '../src/weixin/credentials/authorizations.ts';
import { createComponentEvents } from '../src/weixin/credentials/component-events.ts';
import { createComponentTickets } from '../src/weixin/credentials/component-tickets.ts';
import type { TokenRefresh } from '../src/weixin/credentials/issued-token.ts';
import { createTokenSource } from '../src/weixin/credentials/token-source.ts';
import { createHttpPool } from '../src/weixin/http.ts';
import { StartupError } from './startup-error.ts';

const CLOSE_TIMEOUT_MS = 5 * SECOND;
const STORE_CONNECTIONS = 16;
const never = new AbortController().signal;
/** WeChat itself waits 5 s. */
const PUSH_TIMEOUT_MS = 5 * SECOND;
/** For what platforms ask WeChat, a few times an hour. */
const WEIXIN_CONNECTIONS = 4;

/**
 * The HTTP door: config → connections → parts → run → dispose.
 *
 * Listens at once, also while Redis is away, and says so to whoever asks. Runs until `stop` aborts, then lets what is
 * under way end. Resolves within SHUTDOWN_GRACE_SECONDS and a few seconds more, also when Redis is gone.
 *
 * @param more routes of others, and other limits for tests.
 * @throws StartupError when the address can't be listened on, or Redis has not the database of REDIS_URL.
 */
export async function runIngest(
  config: Config,
  log: Logger,
  stop: AbortSignal,
  more: Pick<HttpServerOptions, 'plugins' | 'limits'> = {},
): Promise<void> {
  const { accounts, components, media, store: storeConfig, ingest, weixin, worker } = config;

  // Connections
  const onRedisError = (error: Error): void =>
    log.warn({ err: error, redis: describeRedis(config.redis) }, 'Redis connection error');
  const redis = connectRedis(config.redis, 'hasty', 'weixin-media:ingest', onRedisError);
  const s3 = storeConfig === undefined ? undefined : createS3Client(storeConfig, STORE_CONNECTIONS);
  const http = createHttpPool(weixin.timeouts, WEIXIN_CONNECTIONS);
  const forward = weixin.forwardUrl === undefined ? undefined : createForward(weixin.forwardUrl, log);

  // Parts
  const clock = createFleetClock(redis, elapsed, Date.now);
  const { now } = clock;
  const syncClock = clockKeeper(clock, log);
  const keys = redisKeys(config.redis.prefix);
  const pulse = takePulse(redis, keys, elapsed);
  const lanes = openLanes(redis, config.redis.prefix, { lockMs: worker.lockMs, rescueEveryMs: worker.lockMs / 2 });
  const authorizations = createAuthorizations(redis, keys);
  const book = createAccountBook(accounts, components, authorizations);
  const doorOptions = {
    redis,
    keys,
    lanes,
    mediaTtlMs: media.ttlMs,
    openId: media.openId,
    waitReplicas: config.redis.waitReplicas ?? 0,
    now,
  };
  const door = createDoor({ ...doorOptions, apps: book });
  const wayIn = createWayIn({ redis, door: createBatchingDoor(door, HAND_IN_TIMEOUT_MS), pulse });
  // Whose app it is, is proved by the signature: it may have authorised its platform just now.
  const pushDoor = createBatchingDoor(createDoor(doorOptions), PUSH_TIMEOUT_MS);
  const gates = createGates(redis, keys, now, elapsed, Math.random);
  const markers = createArchivedMarkers(redis, keys, now);
  const deadLetterIndex = createDeadLetterIndex(redis, keys, now);
  const tickets = createComponentTickets(redis, keys, now);
  const hosts = createApiHosts(weixin.apiBaseUrls, elapsed);
  const tokens = createTokenSource({ redis, keys, endpoint: { hosts, http }, now, random: Math.random, onRefresh });
  const codes = createCodeRedeemer(tokens, components, log, stop);
  const gateHooks = platformGates(gates, authorizations, book, (appId) => log.info({ appId }, 'gate opened'));
  const componentEvents = createComponentEvents({
    redis,
    keys,
    components,
    accounts: book,
    tickets,
    authorizations,
    ...gateHooks,
    onTicket: async (component) => {
      await book.refresh();
      await gateHooks.onTicket(component);
    },
    onAuthorized: async (component, appId) => {
      await gateHooks.onAuthorized(component, appId);
      log.info({ appId, component: component.appId }, 'an account has authorised the platform');
      await book.refresh();
      codes.redeem();
    },
    onWithdrawn: async (component, appId) => {
      await gateHooks.onWithdrawn(component, appId);
      log.warn({ appId, component: component.appId }, 'an account has withdrawn its authorisation');
    },
  });
  const pushes = pushRoutes({
    accounts: book,
    components,
    // Not `stop`: what is under way then ends, and Redis is closed after it.
    admit: (jobs) => pushDoor.admitEach(jobs, never),
    patiently: createPatience(redis, pulse),
    componentEvents,
    ...(forward === undefined ? {} : { forward }),
    now,
    log,
    observe: (event) => metrics.observePush(event),
  });
  const bucket = openBucket();
  const redisUp = (): boolean => redis.status === 'ready' && !pulse.isSilent;
  const metrics = createIngestMetrics(redisUp);

  // Run
  let ready = false;
  let server: HttpServer | undefined;
  const beat = setInterval(() => {
    if (redis.status !== 'ready') return;
    syncClock().catch(() => undefined);
    book.refresh().catch(() => undefined);
    codes.redeem();
  }, HEARTBEAT_MS);

  try {
    server = await startHttpServer({
      ...ingest,
      media: {
        wayIn,
        desk: { queue: { redis, keys, lanes, gates, markers, deadLetterIndex }, bucket, mediaTtlMs: media.ttlMs },
        now,
      },
      deadLetters: {
        replayParts: { redis, keys, lanes, mediaTtlMs: media.ttlMs, now },
        index: deadLetterIndex,
        bucket,
        stop,
      },
      unready: () => {
        if (!ready) return 'starting or stopping';
        if (redis.status !== 'ready') return 'Redis is not connected';
        return pulse.isSilent ? 'Redis does not answer' : undefined;
      },
      metrics,
      elapsed,
      log,
      ...more,
      plugins: [pushes, ...(more.plugins ?? [])],
    }).catch((error: unknown) => {
      if (!(error instanceof Error && 'syscall' in error && 'code' in error)) throw error;
      const { code } = error;
      throw new StartupError(
        `HTTP_PORT ${ingest.port} on ${ingest.host} can't be listened on (${code}): set HTTP_PORT to a free port`,
      );
    });
    log.info(
      {
        version: VERSION,
        apps: accounts.length,
        platforms: components.length,
        httpHost: ingest.host,
        httpPort: server.port,
        tokens: ingest.tokens.length,
      },
      'ingest listens',
    );
    const lenient = accounts.filter(({ push }) => push?.type === 'signed' && isLenient(push.settings));
    if (lenient.length > 0)
      log.warn(
        { apps: lenient.map(({ appId }) => appId) },
        'pushes of these apps are taken in plaintext too, although they have a key: set the mode of their push',
      );
    if (bucket === undefined) log.info('ARCHIVE_BUCKET is not set: dead letters can be listed, not shown or replayed');
    const refused = await awaitRedis(redis, config.redis, log, stop);
    if (refused !== undefined) throw new StartupError(refused);
    await orAbort(syncClock(), stop).catch((error: unknown) =>
      log.warn({ err: error }, 'Redis does not tell its time'),
    );
    await orAbort(book.refresh(), stop).catch((error: unknown) =>
      log.warn({ err: error }, 'Redis does not tell who has authorised the platforms'),
    );
    ready = true;
    log.info('ingest started');
    await untilAborted(stop);
  } catch (error) {
    // Stopped before it was ready: nothing has been taken.
    if (!stop.aborted) throw error;
  } finally {
    ready = false;
    log.info({ graceMs: worker.shutdownGraceMs }, 'ingest stops');
    await server?.close(worker.shutdownGraceMs);
    await forward?.close();
    clearInterval(beat);
    pulse.stop();
    await within(CLOSE_TIMEOUT_MS, Promise.all([codes.settled(), lanes.close()]));
    await http.close();
    s3?.destroy();
    await closeRedis(redis);
    log.info('ingest stopped');
  }

  function openBucket(): HttpServerOptions['deadLetters']['bucket'] {
    if (s3 === undefined || storeConfig === undefined) return undefined;
    const { bucket: name, partSizeBytes } = storeConfig;
    const store = createS3Store({ client: s3, bucket: name, partSizeBytes });
    return {
      store,
      deadLetters: createDeadLetters(store, deadLetterIndex, announceTo(createOutbox(redis, keys, now)), now),
    };
  }

  function onRefresh(refresh: TokenRefresh): void {
    if (refresh.result === 'failed') log.warn(refresh, 'a token of a platform could not be had');
    else log.info(refresh, 'a token of a platform was fetched');
  }
}

/** True where whoever sees the signature of an encrypted push may write one in plaintext. */
function isLenient({ encodingAesKey, mustBeEncrypted }: PushSettings): boolean {
  return encodingAesKey !== undefined && !mustBeEncrypted;
}
