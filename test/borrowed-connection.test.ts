import { Cluster, Redis, type RedisOptions } from 'ioredis';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../src/demo/redis-server.ts';
import {
  createMediaProducer,
  type MediaProducer,
  type MediaProducerOptions,
  ProducerClosedError,
  QueueUnavailableError,
} from '../src/index.ts';
import { eventually } from './support/eventually.ts';
import { APP_ID, OTHER_APP_ID, testJob } from './support/jobs.ts';
import { openOwnCluster, openOwnRedis, startLoadingRedis } from './support/own-redis.ts';
import { openTestRedis, type TestRedis } from './support/redis.ts';

/** No test is about how fast this machine is. */
const PATIENT_MS = 30_000;

/** With it the class has another type. */
type Options = Omit<RedisOptions, 'replyMapping'>;

/** What callers set, some of it unwise. */
const SETTINGS = {
  'as ioredis sets it': {},
  'that tries for ever': { maxRetriesPerRequest: null },
  'that never tries again': { maxRetriesPerRequest: 0, enableOfflineQueue: false },
  'that connects when it must': { lazyConnect: true, maxRetriesPerRequest: null },
  'that does not look whether Redis is ready': { enableReadyCheck: false, maxRetriesPerRequest: null },
  'that collects commands': { enableAutoPipelining: true },
  'that gives up late': { commandTimeout: 120_000 },
} as const satisfies Readonly<Record<string, Options>>;
const settings = Object.entries(SETTINGS);

let parts: AsyncDisposableStack;

beforeEach(() => {
  parts = new AsyncDisposableStack();
});

afterEach(() => parts.disposeAsync());

/** A connection as a program of its own opens it. */
function theirs(port: number, options: Options = {}): Redis {
  const connection = new Redis(port, '127.0.0.1', options);
  connection.on('error', () => undefined);
  parts.defer(() => connection.disconnect());
  return connection;
}

function producerOf(options: MediaProducerOptions): MediaProducer {
  const producer = createMediaProducer({ timeoutMs: PATIENT_MS, ...options });
  parts.defer(() => producer.close());
  return producer;
}

const portOf = (url: string): number => Number(new URL(url).port);

describe('a producer over a connection of the caller', () => {
  let corner: TestRedis;

  beforeEach(async () => {
    corner = parts.use(await openTestRedis());
  });

  test.each(settings)('%s queues a media once, and tells of it', async (_what, options) => {
    const connection = theirs(portOf(corner.url), options);
    const { enqueue, enqueueMany, status } = producerOf({ connection, prefix: corner.prefix });
    const [job, other] = [testJob(), testJob({ appId: OTHER_APP_ID })];
    expect(await enqueue(job)).toBe('accepted');
    expect(await enqueueMany([job, other])).toEqual({ accepted: 1, duplicates: 1, rejected: [] });
    expect(await status(job.appId, job.mediaId)).toMatchObject({ state: 'waiting', attempts: 0 });
    expect(await status(APP_ID, 'nobody-has-handed-it-in')).toEqual({ state: 'unknown' });
  });

  test('leaves it open when it closes, with nothing of its own on it, and takes no more calls', async () => {
    const connection = theirs(portOf(corner.url));
    await connection.ping();
    const listeners = (): number[] => connection.eventNames().map((name) => connection.listenerCount(name));
    const before = [connection.eventNames(), listeners(), connection.getMaxListeners()];
    const producer = createMediaProducer({ connection, prefix: corner.prefix });
    expect(await producer.enqueue(testJob())).toBe('accepted');
    await producer.close();
    expect(connection.status).toBe('ready');
    expect(await connection.ping()).toBe('PONG');
    expect([connection.eventNames(), listeners(), connection.getMaxListeners()]).toEqual(before);
    for (const call of callsOf(producer)) await expect(call).rejects.toThrow(ProducerClosedError);
    await producer.close();
    expect(await producerOf({ connection, prefix: corner.prefix }).enqueue(testJob())).toBe('accepted');
  });

  test('shares it with another producer, and closing one leaves the other at work', async () => {
    const connection = theirs(portOf(corner.url));
    const [one, two] = [0, 1].map(() => producerOf({ connection, prefix: corner.prefix }));
    const job = testJob();
    expect(await one?.enqueue(job)).toBe('accepted');
    await one?.close();
    expect(await two?.enqueue(job)).toBe('duplicate');
    expect(await two?.enqueue(testJob())).toBe('accepted');
  });

  test('that has been closed ends in QueueUnavailableError', async () => {
    const connection = theirs(portOf(corner.url));
    const producer = producerOf({ connection, prefix: corner.prefix });
    await producer.enqueue(testJob());
    await connection.quit();
    for (const call of callsOf(producer)) await expect(call).rejects.toThrow(QueueUnavailableError);
  });

  test('that has a defect of its own shows it as it is', async () => {
    const connection = theirs(portOf(corner.url));
    const { enqueue, enqueueMany } = producerOf({ connection, prefix: corner.prefix });
    const defect = new TypeError('commands is not iterable');
    connection.pipeline = () => {
      throw defect;
    };
    await expect(enqueue(testJob())).rejects.toBe(defect);
    await expect(enqueueMany([testJob()])).rejects.toBe(defect);
  });

  const WRONG: readonly [string, (connection: Redis) => object, string][] = [
    ['and an address', (connection) => ({ connection, redisUrl: 'redis://127.0.0.1' }), 'connection, redisUrl:'],
    ['and Sentinels', (connection) => ({ connection, sentinels: [] }), 'connection, sentinels:'],
    ['and nodes', (connection) => ({ connection, clusterNodes: [] }), 'connection, clusterNodes:'],
    ['that is an address', () => ({ connection: 'redis://:the-password@127.0.0.1' }), 'connection: a Redis or Cluster'],
    ['that is none', () => ({ connection: null }), 'connection: a Redis or Cluster'],
    ['of another library', () => ({ connection: { sendCommand: () => 1, isReady: true } }), 'connection: a Redis or'],
    ['and half a replica', (connection) => ({ connection, waitReplicas: 0.5 }), 'waitReplicas:'],
  ];

  test.each(WRONG)('%s is refused at once', (_what, optionsOf, says) => {
    const options = optionsOf(theirs(portOf(corner.url), { lazyConnect: true })) as MediaProducerOptions;
    expect(() => producerOf(options)).toThrow(TypeError);
    expect(() => producerOf(options)).toThrow(new RegExp(`^${says}`));
    expect(() => producerOf(options)).not.toThrow(/the-password/);
  });

  test.each([{ keyPrefix: 'ours:' }, { stringNumbers: true }, { replyMapping: 'resp3' }])(
    'that is set to %j, with which BullMQ would write to wrong places, is refused at once',
    (options) => {
      const connection = theirs(portOf(corner.url), { lazyConnect: true, ...options });
      const [name = ''] = Object.keys(options);
      expect(() => producerOf({ connection })).toThrow(new TypeError(`connection: one without ${name} is expected`));
    },
  );
});

/** One call of each kind. */
function callsOf({ enqueue, enqueueMany, status }: MediaProducer): Promise<unknown>[] {
  return [enqueue(testJob()), enqueueMany([testJob(), testJob()]), status(APP_ID, 'A')];
}

describe('a producer over a Cluster of the caller', () => {
  function theirCluster(port: number, keyPrefix = ''): Cluster {
    const connection = new Cluster([{ host: '127.0.0.1', port }], { redisOptions: { keyPrefix } });
    connection.on('error', () => undefined);
    parts.defer(() => connection.disconnect());
    return connection;
  }

  test('queues, tells, and leaves it open', async () => {
    const own = parts.use(await openOwnCluster());
    const connection = theirCluster(own.server.port);
    const producer = createMediaProducer({ connection, timeoutMs: PATIENT_MS });
    const job = testJob();
    expect(await producer.enqueueMany([job, testJob({ appId: OTHER_APP_ID })])).toMatchObject({ accepted: 2 });
    expect(await producer.status(job.appId, job.mediaId)).toMatchObject({ state: 'waiting' });
    await producer.close();
    expect(await connection.ping()).toBe('PONG');

    const hasty = producerOf({ connection, timeoutMs: 300 });
    await own.stop();
    for (const call of callsOf(hasty)) await expect(call).rejects.toThrow(QueueUnavailableError);
  });

  test('is refused with a prefix that is no hash tag, replicas to wait for, or a prefix of its own', async () => {
    const port = await freePort();
    const connection = theirCluster(port);
    expect(() => producerOf({ connection, prefix: 'media' })).toThrow(/^prefix: /);
    expect(() => producerOf({ connection, waitReplicas: 1 })).toThrow(/^waitReplicas: /);
    expect(() => producerOf({ connection: theirCluster(port, 'ours:') })).toThrow(/without keyPrefix/);
  });
});

describe('in trouble, every call ends in QueueUnavailableError', () => {
  /** Every way to a Redis at this port. */
  function ways(port: number, timeoutMs: number): [string, MediaProducer][] {
    return [
      ['an address', producerOf({ redisUrl: `redis://127.0.0.1:${port}`, timeoutMs })],
      ...settings.map(([what, options]): [string, MediaProducer] => [
        `a connection ${what}`,
        producerOf({ connection: theirs(port, options), timeoutMs }),
      ]),
    ];
  }

  async function allRefuse(producers: readonly [string, MediaProducer][], says: RegExp): Promise<void> {
    const ends = producers.map(async ([way, producer]) => ({ way, ends: await Promise.allSettled(callsOf(producer)) }));
    for (const { way, ends: each } of await Promise.all(ends)) {
      for (const end of each) {
        expect(end, way).toMatchObject({ status: 'rejected', reason: expect.any(QueueUnavailableError) });
        expect(String(end.status === 'rejected' ? end.reason : ''), way).toMatch(says);
      }
    }
  }

  test('at a closed port', async () => {
    await allRefuse(ways(await freePort(), 200), /within 200 ms$/);
  });

  test('while Redis is frozen, on a connection that has worked and on one that never has', async () => {
    const own = parts.use(await openOwnRedis());
    const used = ways(own.server.port, 300);
    for (const [, producer] of used) await eventually(() => producer.enqueue(testJob()).catch(() => undefined));
    own.freeze();
    await allRefuse(used, /within 300 ms$/);
    await allRefuse(ways(own.server.port, 200), /within 200 ms$/);
    own.thaw();
    for (const [way, producer] of used) {
      const answer = await eventually(() => producer.enqueue(testJob()).catch(() => undefined));
      expect(answer, way).toBe('accepted');
    }
  });

  test('while Redis reads its data', async () => {
    await allRefuse(ways(await startLoadingRedis(parts), 500), /within 500 ms$|did not/);
  });

  test('when Redis is full; what can be read is still told', async () => {
    const own = parts.use(await openOwnRedis());
    const job = testJob();
    const producers = ways(own.server.port, PATIENT_MS);
    await producers[0]?.[1].enqueue(job);
    await theirs(own.server.port).config('SET', 'maxmemory', '1');
    for (const [way, { enqueue, enqueueMany, status }] of producers) {
      for (const call of [() => enqueue(testJob()), () => enqueueMany([testJob()])])
        await expect(call(), way).rejects.toThrow(new QueueUnavailableError('Redis did not take the job'));
      expect(await status(job.appId, job.mediaId), way).toMatchObject({ state: 'waiting' });
    }
  });
});

test('what is handed in while Redis is frozen is not kept for it, however much it is', async () => {
  const own = parts.use(await openOwnRedis());
  const connection = theirs(own.server.port, { maxRetriesPerRequest: null });
  const { enqueue, status } = producerOf({ connection, timeoutMs: 300 });
  await eventually(() => enqueue(testJob()).catch(() => undefined));
  own.freeze();
  await expect(enqueue(testJob())).rejects.toThrow(QueueUnavailableError);
  const jobs = Array.from({ length: 50 }, () => testJob());
  const ends = await Promise.allSettled(jobs.map(enqueue));
  expect(ends.filter(({ status: end }) => end === 'rejected')).toHaveLength(50);
  own.thaw();
  // Redis answers in order: by then it has met all that was sent.
  await eventually(() => enqueue(testJob()).catch(() => undefined));
  for (const { appId, mediaId } of jobs) expect(await status(appId, mediaId)).toEqual({ state: 'unknown' });
});

test('calls on a connection whose Redis is away are told, a hundred at once, and Node warns of nothing', async () => {
  const warnings: Error[] = [];
  const remember = (warning: Error): void => void warnings.push(warning);
  process.on('warning', remember);
  parts.defer(() => void process.off('warning', remember));
  const { enqueue } = producerOf({ connection: theirs(await freePort()), timeoutMs: 200 });
  const calls = await Promise.allSettled(Array.from({ length: 100 }, () => enqueue(testJob())));
  for (const call of calls) expect(call).toMatchObject({ reason: expect.any(QueueUnavailableError) });
  // Warnings are told in the next turn.
  await new Promise((resolve) => setImmediate(resolve));
  expect(warnings.map(({ message }) => message)).toEqual([]);
});

test('closing a producer on a connection whose Redis is away or frozen ends, and leaves the connection to its owner', async () => {
  const own = parts.use(await openOwnRedis());
  const connection = theirs(own.server.port, { maxRetriesPerRequest: null });
  const frozen = createMediaProducer({ connection, timeoutMs: PATIENT_MS });
  await frozen.enqueue(testJob());
  own.freeze();
  await frozen.close();
  own.thaw();
  expect(await connection.ping()).toBe('PONG');

  const away = theirs(await freePort());
  const producer = createMediaProducer({ connection: away, timeoutMs: PATIENT_MS });
  const call = producer.enqueue(testJob());
  await producer.close();
  await expect(call).rejects.toThrow(ProducerClosedError);
  expect(away.status).not.toBe('end');
});
