import { Cluster, Redis } from 'ioredis';
import { orAbort } from '../abort.ts';
import type { Secret } from '../secret.ts';
import { SECOND } from '../time.ts';
import { writeTogether } from './write-together.ts';

export interface RedisConfig {
  /** Holds user and password, hence a secret. */
  readonly url: Secret;
  /** The prefix of every key; a hash tag, so that all keys lie in one Cluster slot. */
  readonly prefix: string;
  readonly sentinels?: readonly { readonly host: string; readonly port: number }[];
  readonly sentinelMaster: string;
  readonly clusterNodes?: readonly { readonly host: string; readonly port: number }[];
  /** How many replicas must hold a job before it counts as accepted. Not for a Cluster. Default 0. */
  readonly waitReplicas?: number;
}

/** A connection to a single Redis, to the master that Sentinels name, or to a Cluster. */
export type RedisClient = Redis | Cluster;

/**
 * How a connection behaves while Redis is away.
 *
 * - `patient`: commands wait until Redis is back. For the worker, whose jobs lie in Redis anyway.
 * - `hasty`: commands fail at once. For producers, whose caller must be told within two seconds.
 * - `blocking`: as patient, for a connection that waits with blocking commands. One that a frozen Redis never answers
 *   ends with `null` all the same.
 */
export type Patience = 'patient' | 'hasty' | 'blocking';

const RECONNECT_MIN_MS = 100;
const RECONNECT_MAX_MS = 2 * SECOND;
/** For blocking commands that name no timeout of their own; ours all do. */
const MAX_BLOCKING_MS = 10 * SECOND;
const BLOCKING_GRACE_MS = 2 * SECOND;

/**
 * Opens a connection. Returns at once; it connects in the background and reconnects for ever.
 *
 * @param name shown by `CLIENT LIST`.
 * @param onError receives every connection error. Without it ioredis would print them to the console.
 */
export function connectRedis(
  config: RedisConfig,
  patience: Patience,
  name: string,
  onError: (error: Error) => void,
): RedisClient {
  const client = open(config, {
    connectionName: name,
    maxRetriesPerRequest: patience === 'hasty' ? 0 : null,
    enableOfflineQueue: patience !== 'hasty',
    blockingTimeout: patience === 'blocking' ? MAX_BLOCKING_MS : 0,
    blockingTimeoutGrace: BLOCKING_GRACE_MS,
    connectTimeout: 5 * SECOND,
    retryStrategy: (times: number) => Math.min(RECONNECT_MIN_MS * 2 ** Math.min(times, 10), RECONNECT_MAX_MS),
    // A master that became a replica answers READONLY: reconnect, and send the command again to the new master.
    reconnectOnError: (error: Error) => (error.message.startsWith('READONLY') ? 2 : false),
  });
  writeTogether(client);
  // BullMQ adds to this number, so it can't be 0: however many callers may wait for the connection.
  client.setMaxListeners(Number.POSITIVE_INFINITY);
  client.on('error', (error: Error) => {
    withoutArguments(error);
    // ioredis goes on with database 0, where nobody would look for what is put there.
    if (REFUSED_DATABASE.test(error.message)) {
      refused.set(client, error);
      client.disconnect();
    }
    onError(error);
  });
  return client;
}

/**
 * ioredis hangs a refused command onto the error, arguments and all, and a Redis that does not know it repeats it: of AUTH
 * that is the password. A Cluster hangs the error of its last node onto its own.
 */
function withoutArguments(error: Error): void {
  const cut = (text: string): string => text.replace(/, with args[^\n]*/g, '');
  Reflect.deleteProperty(error, 'command');
  error.message = cut(error.message);
  if (error.stack !== undefined) error.stack = cut(error.stack);
  for (const inner of [error.cause, Reflect.get(error, 'lastNodeError')]) {
    if (inner instanceof Error && inner !== error) withoutArguments(inner);
  }
}

interface CommonOptions {
  readonly connectionName: string;
  readonly maxRetriesPerRequest: number | null;
  readonly enableOfflineQueue: boolean;
  readonly blockingTimeout: number;
  readonly blockingTimeoutGrace: number;
  readonly connectTimeout: number;
  readonly retryStrategy: (times: number) => number;
  readonly reconnectOnError: (error: Error) => false | 2;
}

function open(config: RedisConfig, options: CommonOptions): RedisClient {
  const url = new URL(config.url.reveal());
  const login = {
    ...(url.username === '' ? {} : { username: decodeURIComponent(url.username) }),
    ...(url.password === '' ? {} : { password: decodeURIComponent(url.password) }),
    ...(url.protocol === 'rediss:' ? { tls: { servername: url.hostname } } : {}),
  };
  if (config.clusterNodes !== undefined) {
    const { retryStrategy, enableOfflineQueue, ...perNode } = options;
    return new Cluster([...config.clusterNodes], {
      redisOptions: { ...perNode, ...login },
      enableOfflineQueue,
      clusterRetryStrategy: retryStrategy,
    });
  }
  const db = databaseOf(url);
  if (config.sentinels !== undefined) {
    return new Redis({ ...options, ...login, db, sentinels: [...config.sentinels], name: config.sentinelMaster });
  }
  const host = url.hostname.replace(/^\[|\]$/g, '') || '127.0.0.1';
  return new Redis({ ...options, ...login, host, port: Number(url.port || 6379), db });
}

function databaseOf(url: URL): number {
  const database = Number(url.pathname.slice(1) || 0);
  return Number.isInteger(database) ? database : 0;
}

/** Names the Redis for logs and errors, without user and password. */
export function describeRedis(config: RedisConfig): string {
  const nodes = config.clusterNodes ?? config.sentinels;
  if (nodes !== undefined) return nodes.map(({ host, port }) => `${host}:${port}`).join(',');
  const url = new URL(config.url.reveal());
  return `${url.hostname || '127.0.0.1'}:${url.port || 6379}`;
}

/** Closes a connection within a second, also when Redis is gone. Commands still waiting are given up. */
export async function closeRedis(client: RedisClient): Promise<void> {
  if (client.status !== 'ready') {
    client.disconnect();
    return;
  }
  const { promise: timeout, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, SECOND);
  await Promise.race([client.quit().catch(() => undefined), timeout]);
  clearTimeout(timer);
  client.disconnect();
}

/** The database of the address does not exist. */
export class DatabaseRefusedError extends Error {
  override readonly name = 'DatabaseRefusedError';
}

/** Redis has no codes for its errors but the first word, and this one's is ERR. */
const REFUSED_DATABASE = /^ERR (DB index is out of range|invalid DB index|SELECT is not allowed)/;
const refused = new WeakMap<RedisClient, Error>();
const seenReady = new WeakSet<RedisClient>();

/**
 * Resolves when the connection is ready; rejects when `signal` aborts first. A lazy connection is told to connect.
 *
 * @throws DatabaseRefusedError when the Redis is there but not the database of the address; Error when the connection has
 * been closed; the signal's reason.
 */
export async function untilReady(client: RedisClient, signal: AbortSignal): Promise<void> {
  if (client.status === 'ready' && seenReady.has(client)) return;
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = (): void => reject(signal.reason);
  const onEnd = (): void => {
    const error = refused.get(client);
    reject(error === undefined ? new Error('the connection has been closed') : new DatabaseRefusedError(error.message));
  };
  client.once('ready', resolve);
  client.once('end', onEnd);
  signal.addEventListener('abort', onAbort, { once: true });
  // That it can't is told by its events.
  if (client.status === 'wait') client.connect().catch(() => undefined);
  try {
    if (client.status === 'ready') resolve();
    if (client.status === 'end') onEnd();
    await promise;
  } finally {
    client.off('ready', resolve);
    client.off('end', onEnd);
    signal.removeEventListener('abort', onAbort);
  }
  // Redis answers in order: by then it has answered SELECT too. A connection that breaks meanwhile tells nothing.
  await orAbort(client.ping(), signal).catch(() => signal.throwIfAborted());
  const error = refused.get(client);
  if (error !== undefined) throw new DatabaseRefusedError(error.message);
  seenReady.add(client);
}
