import { execFile } from 'node:child_process';
import { createServer } from 'node:net';
import { fileURLToPath } from 'node:url';
import { inspect, promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../src/demo/redis-server.ts';
import {
  createMediaProducer,
  InvalidMediaJobError,
  type MediaJob,
  type MediaProducer,
  type MediaProducerOptions,
  ProducerClosedError,
  QueueUnavailableError,
} from '../src/index.ts';
import { pseudonymOf } from '../src/media/open-id.ts';
import { closeRedis, connectRedis, type RedisClient } from '../src/redis/connect.ts';
import { Secret } from '../src/secret.ts';
import { eventually } from './support/eventually.ts';
import { APP_ID, OTHER_APP_ID, testJob } from './support/jobs.ts';
import { openOwnCluster, openOwnRedis, startSentinel } from './support/own-redis.ts';
import { openTestRedis, type TestRedis } from './support/redis.ts';

const run = promisify(execFile);
/** No test is about how fast this machine is. */
const PATIENT_MS = 30_000;
const source = new URL('../src/index.ts', import.meta.url).href;

let parts: AsyncDisposableStack;

beforeEach(() => {
  parts = new AsyncDisposableStack();
});

afterEach(() => parts.disposeAsync());

function producerOf(options: MediaProducerOptions): MediaProducer {
  const producer = createMediaProducer({ timeoutMs: PATIENT_MS, ...options });
  parts.defer(() => producer.close());
  return producer;
}

function look(url: string): RedisClient {
  const config = { url: new Secret(url), prefix: '', sentinelMaster: '' };
  const client = connectRedis(config, 'patient', 'test', () => undefined);
  parts.defer(() => closeRedis(client));
  return client;
}

describe('a producer', () => {
  let corner: TestRedis;

  beforeEach(async () => {
    corner = parts.use(await openTestRedis());
  });

  function producer(options: Partial<MediaProducerOptions> = {}): MediaProducer {
    return producerOf({ redisUrl: corner.url, prefix: corner.prefix, ...options });
  }

  async function everything(): Promise<string> {
    const texts: string[] = [];
    for (const key of await corner.redis.keys(`${corner.prefix.replaceAll(/[{}]/g, '?')}*`)) {
      texts.push(key);
      if ((await corner.redis.type(key)) === 'hash') texts.push(JSON.stringify(await corner.redis.hgetall(key)));
    }
    return texts.join('\n');
  }

  test('queues a media that is new, and does nothing when it is handed in again', async () => {
    const job = testJob();
    const { enqueue } = producer();
    expect(await enqueue(job)).toBe('accepted');
    expect(await enqueue(job)).toBe('duplicate');
    expect(await producer().enqueue(job)).toBe('duplicate');
  });

  test('calls at the same time queue a media once', async () => {
    const job = testJob();
    const { enqueue, enqueueMany } = producer();
    await Promise.all(Array.from({ length: 20 }, () => enqueue(job)));
    const jobKeys = await corner.redis.keys(`*${job.mediaId}`);
    expect(jobKeys).toHaveLength(1);
    expect(await enqueueMany([job, job])).toEqual({ accepted: 0, duplicates: 2, rejected: [] });
  });

  const WRONG: readonly [string, object, string][] = [
    ['another version', { v: 2 }, 'v:'],
    ['an app that is none', { appId: 'wx1' }, 'appId:'],
    ['a media_id with a slash', { mediaId: '../../x' }, 'mediaId:'],
    ['a media_id that is too long', { mediaId: 'a'.repeat(257) }, 'mediaId:'],
    ['an unknown kind', { kind: 'gif' }, 'kind:'],
    ['no time', { receivedAt: undefined }, 'receivedAt:'],
    ['a time without a zone', { receivedAt: '2026-06-15T11:00:00' }, 'receivedAt:'],
    ['a time in the future', { receivedAt: '2999-01-01T00:00:00Z' }, 'receivedAt:'],
    ['a misspelt field', { recievedAt: 'x' }, 'job:'],
    ['an openId in the wrong place', { openId: 'oSECRET' }, 'job:'],
    ['a label that is no text', { labels: { a: 1 } }, 'labels.a:'],
    ['too many labels', { labels: Object.fromEntries(Array.from({ length: 17 }, (_, i) => [`l${i}`, ''])) }, 'labels:'],
  ];

  test.each(WRONG)(
    'a job with %s is refused with a sentence for it, and nothing is left behind',
    async (_, wrong, says) => {
      const refused = producer().enqueue({ ...testJob(), ...wrong } as MediaJob);
      const error = await refused.catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(InvalidMediaJobError);
      const { mistakes, message } = error as InvalidMediaJobError;
      expect(mistakes).toHaveLength(1);
      expect(mistakes[0]).toMatch(new RegExp(`^${says}`));
      expect(message).toContain(mistakes[0]);
      expect(message).not.toContain('oSECRET');
      expect(await everything()).toBe('');
    },
  );

  test.each([undefined, null, 7, 'job', []])('%j is no job', async (input) => {
    await expect(producer().enqueue(input as unknown as MediaJob)).rejects.toThrow(InvalidMediaJobError);
    expect(await everything()).toBe('');
  });

  test('of many jobs the good ones are queued and the others named by their place', async () => {
    const good = [testJob(), testJob()];
    const { rejected, ...sums } = await producer().enqueueMany([
      good[0],
      { ...testJob(), v: 3 },
      good[1],
      null,
      good[0],
    ]);
    expect(sums).toEqual({ accepted: 2, duplicates: 1 });
    expect(rejected.map(({ index }) => index)).toEqual([1, 3]);
    for (const { mistakes } of rejected) expect(mistakes).toHaveLength(1);
  });

  test('more jobs than go into one command are all queued', async () => {
    const jobs = Array.from({ length: 1_201 }, (_, index) =>
      testJob({ appId: index % 2 === 0 ? APP_ID : OTHER_APP_ID }),
    );
    const { enqueueMany } = producer();
    expect(await enqueueMany(jobs)).toEqual({ accepted: 1_201, duplicates: 0, rejected: [] });
    expect(await enqueueMany(jobs)).toEqual({ accepted: 0, duplicates: 1_201, rejected: [] });
  });

  test('nothing to queue is nothing done', async () => {
    expect(await producer().enqueueMany([])).toEqual({ accepted: 0, duplicates: 0, rejected: [] });
  });

  test.each([undefined, null, 'abc', { 0: {} }, new Set()])('%j is no array of jobs', async (jobs) => {
    const { enqueueMany } = producer();
    await expect(enqueueMany(jobs as unknown as unknown[])).rejects.toThrow(
      new TypeError('jobs: an array is expected'),
    );
  });

  test('what was closed takes no call, not even one for nothing, and may be closed again', async () => {
    const closed = producer();
    await closed.enqueue(testJob());
    await closed.close();
    for (const call of [closed.enqueue(testJob()), closed.enqueueMany([]), closed.status(APP_ID, 'A')])
      await expect(call).rejects.toThrow(new ProducerClosedError('the producer has been closed'));
    await closed.close();
  });

  test('only the apps that it was told of may be handed in', async () => {
    const { enqueue } = producer({ appIds: [OTHER_APP_ID] });
    await expect(enqueue(testJob())).rejects.toThrow(InvalidMediaJobError);
    expect(await enqueue(testJob({ appId: OTHER_APP_ID }))).toBe('accepted');
  });

  test('an openId is dropped before anything is stored, or kept as a pseudonym where there is a key', async () => {
    const openIdKey = '0123456789abcdef';
    const job = testJob({ source: { openId: 'oPERSON', messageId: '24' } });
    await producer().enqueue(job);
    expect(await everything()).not.toContain('oPERSON');
    expect(await everything()).not.toContain('hmac');

    const other = testJob({ source: { openId: 'oPERSON' } });
    await producer({ openIdKey }).enqueue(other);
    const stored = await everything();
    expect(stored).not.toContain('oPERSON');
    expect(stored).toContain(pseudonymOf(APP_ID, 'oPERSON', new Secret(openIdKey)));
  });
});

describe('while Redis is away', () => {
  test('a closed port ends in QueueUnavailableError when the time is up, and the producer works once Redis is there', async () => {
    const port = await freePort();
    const errors: Error[] = [];
    const redisUrl = `redis://127.0.0.1:${port}`;
    const hasty = producerOf({ redisUrl, timeoutMs: 200, onError: (error) => void errors.push(error) });
    const patient = producerOf({ redisUrl });
    await expect(hasty.enqueue(testJob())).rejects.toThrow(QueueUnavailableError);
    await expect(hasty.enqueueMany([testJob()])).rejects.toThrow('Redis did not answer within 200 ms');
    expect(errors.map((error) => inspect(error))).toContainEqual(expect.stringContaining('ECONNREFUSED'));

    parts.use(await openOwnRedis({ port }));
    expect(await patient.enqueue(testJob())).toBe('accepted');
  });

  test('a job that is none is told all the same', async () => {
    const { enqueue } = producerOf({ redisUrl: `redis://127.0.0.1:${await freePort()}`, timeoutMs: 200 });
    await expect(enqueue(testJob({ mediaId: 'a/b' }))).rejects.toThrow(InvalidMediaJobError);
  });

  test('a hundred calls at once are told, and Node warns of nothing', async () => {
    const warnings: Error[] = [];
    const remember = (warning: Error): void => void warnings.push(warning);
    process.on('warning', remember);
    parts.defer(() => void process.off('warning', remember));
    const { enqueue } = producerOf({ redisUrl: `redis://127.0.0.1:${await freePort()}`, timeoutMs: 200 });
    const calls = await Promise.allSettled(Array.from({ length: 100 }, () => enqueue(testJob())));
    for (const call of calls) expect(call).toMatchObject({ reason: expect.any(QueueUnavailableError) });
    // Warnings are told in the next turn.
    await new Promise((resolve) => setImmediate(resolve));
    expect(warnings.map(({ message }) => message)).toEqual([]);
  });

  test('calls that ended leave nothing behind, however many there are until Redis is back', async () => {
    const program = `
      const { createMediaProducer } = await import(${JSON.stringify(source)});
      const redisUrl = 'redis://127.0.0.1:${await freePort()}';
      const { enqueue, close } = createMediaProducer({ redisUrl, timeoutMs: 50 });
      const job = ${JSON.stringify(testJob())};
      async function heapAfter(thousands) {
        for (let left = thousands; left > 0; left -= 1)
          await Promise.allSettled(Array.from({ length: 1_000 }, () => enqueue(job)));
        await new Promise((resolve) => setImmediate(resolve));
        globalThis.gc();
        return process.memoryUsage().heapUsed;
      }
      await heapAfter(2);
      const before = await heapAfter(1);
      console.log((await heapAfter(10)) - before);
      await close();
    `;
    const { stdout } = await run(process.execPath, ['--expose-gc', '--input-type=module', '--eval', program]);
    // A promise that was kept for each took 16 MB.
    expect(Number(stdout)).toBeLessThan(3_000_000);
  });

  test('a frozen Redis ends in QueueUnavailableError, and the same job may be handed in again once it goes on', async () => {
    const own = parts.use(await openOwnRedis());
    const job = testJob();
    const hasty = producerOf({ redisUrl: own.url, timeoutMs: 300 });
    await eventually(() => hasty.enqueue(testJob()).catch(() => undefined));

    own.freeze();
    await expect(hasty.enqueue(job)).rejects.toThrow(QueueUnavailableError);
    own.thaw();
    // Whether the first call went through all the same nobody can know: either answer means that it is queued, once.
    expect(['accepted', 'duplicate']).toContain(await eventually(() => hasty.enqueue(job).catch(() => undefined)));
    expect(await producerOf({ redisUrl: own.url }).enqueue(job)).toBe('duplicate');
  });

  test('one that does not speak ends in QueueUnavailableError', async () => {
    const sockets = new Set<{ destroy(): void }>();
    const mute = createServer((socket) => void sockets.add(socket)).listen(0, '127.0.0.1');
    parts.defer(async () => {
      for (const socket of sockets) socket.destroy();
      await promisify(mute.close.bind(mute))();
    });
    const address = await eventually(() => mute.address() ?? undefined);
    const port = typeof address === 'object' ? address.port : 0;
    const { enqueue } = producerOf({ redisUrl: `redis://127.0.0.1:${port}`, timeoutMs: 200 });
    await expect(enqueue(testJob())).rejects.toThrow(QueueUnavailableError);
  });

  test('more jobs than there is time for are queued up to then, and no more of them later', async () => {
    const own = parts.use(await openOwnRedis());
    const redis = look(own.url);
    const queued = (): Promise<number> => redis.zcard(`{weixin-media}:media-${APP_ID}:prioritized`);
    const { enqueue, enqueueMany } = producerOf({ redisUrl: own.url, timeoutMs: 500 });
    await eventually(() => enqueue(testJob()).catch(() => undefined));
    const before = await queued();

    own.freeze();
    const jobs = Array.from({ length: 1_201 }, () => testJob());
    await expect(enqueueMany(jobs)).rejects.toThrow(QueueUnavailableError);
    own.thaw();
    await eventually(async () => ((await queued()) >= before + 500 ? true : undefined));
    const rest = await producerOf({ redisUrl: own.url }).enqueueMany(jobs);
    expect(rest).toEqual({ accepted: 701, duplicates: 500, rejected: [] });
  });

  test('a call that waits for Redis ends when the producer is closed', async () => {
    const producer = createMediaProducer({ redisUrl: `redis://127.0.0.1:${await freePort()}`, timeoutMs: PATIENT_MS });
    const calls = [producer.enqueue(testJob()), producer.status(APP_ID, 'A')].map((call) => call.catch(String));
    await producer.close();
    expect(await Promise.all(calls)).toEqual(Array(2).fill('ProducerClosedError: the producer has been closed'));
  });

  test('closing a producer whose Redis is away or frozen ends', async () => {
    const own = parts.use(await openOwnRedis());
    const frozen = createMediaProducer({ redisUrl: own.url, timeoutMs: PATIENT_MS });
    await frozen.enqueue(testJob());
    own.freeze();
    await frozen.close();
    await createMediaProducer({ redisUrl: `redis://127.0.0.1:${await freePort()}` }).close();
  });

  test('Redis that was stopped and started again takes jobs from the same producer', async () => {
    const own = parts.use(await openOwnRedis());
    const producer = producerOf({ redisUrl: own.url });
    const before = testJob();
    await producer.enqueue(before);
    await own.stop();
    await own.start();
    // A call that meets the very moment of the break is told so.
    const answer = await eventually(() => producer.enqueue(testJob()).catch(() => undefined));
    expect(answer).toBe('accepted');
    expect(await producer.enqueue(before)).toBe('duplicate');
  });
});

describe('a producer of a Redis with more than one address', () => {
  const nodeOf = (port: number): { host: string; port: number } => ({ host: '127.0.0.1', port });

  test('asks Sentinels for the master by its name, and logs in there', async () => {
    const own = parts.use(await openOwnRedis());
    const sentinels = [nodeOf(await freePort()), nodeOf(await startSentinel(parts, 'archive', own.server.port))];
    await own.lock('the-password');
    const redisUrl = 'redis://:the-password@ignored';
    const job = testJob();
    expect(await producerOf({ redisUrl, sentinels, sentinelMaster: 'archive' }).enqueue(job)).toBe('accepted');
    expect(await producerOf({ redisUrl: own.as(':the-password') }).enqueue(job)).toBe('duplicate');

    const { enqueue } = producerOf({ redisUrl, sentinels, timeoutMs: 500 });
    await expect(enqueue(testJob())).rejects.toThrow(QueueUnavailableError);
  });

  test('needs no address beside its Sentinels, whose master is called mymaster', async () => {
    const own = parts.use(await openOwnRedis());
    const sentinels = [nodeOf(await startSentinel(parts, 'mymaster', own.server.port))];
    expect(await producerOf({ sentinels }).enqueue(testJob())).toBe('accepted');
  });

  test('queues in a Cluster, and closes', async () => {
    const own = parts.use(await openOwnCluster());
    const clusterNodes = [nodeOf(own.server.port)];
    const jobs = [testJob(), testJob({ appId: OTHER_APP_ID })];
    expect(await producerOf({ clusterNodes }).enqueueMany(jobs)).toMatchObject({ accepted: 2 });
    expect(await producerOf({ clusterNodes }).enqueueMany(jobs)).toMatchObject({ duplicates: 2 });
    await own.stop();
    const away = producerOf({ clusterNodes, timeoutMs: 300 });
    await expect(away.enqueue(testJob())).rejects.toThrow(QueueUnavailableError);
  });

  const WRONG: readonly [string, object, string][] = [
    ['nothing', {}, 'redisUrl:'],
    ['no Sentinel', { sentinels: [] }, 'sentinels:'],
    ['a Sentinel as text', { sentinels: ['127.0.0.1:26379'] }, 'sentinels:'],
    ['a text of Sentinels', { sentinels: '127.0.0.1:26379' }, 'sentinels:'],
    ['a node without a port', { clusterNodes: [{ host: 'a' }] }, 'clusterNodes:'],
    ['a node with a port as text', { clusterNodes: [{ host: 'a', port: '1' }] }, 'clusterNodes:'],
    ['a null', { clusterNodes: [null] }, 'clusterNodes:'],
    ['both', { clusterNodes: [nodeOf(1)], sentinels: [nodeOf(2)] }, 'sentinels, clusterNodes:'],
    ['a Cluster and a prefix that is no hash tag', { clusterNodes: [nodeOf(1)], prefix: 'media' }, 'prefix:'],
  ];

  test.each(WRONG)('told of %s it is refused at once', (_, options, says) => {
    expect(() => producerOf(options)).toThrow(TypeError);
    expect(() => producerOf(options)).toThrow(new RegExp(`^${says}`));
  });
});

test('a full Redis refuses every job, of an app that is new and of one that is known, and leaves no part of it', async () => {
  const own = parts.use(await openOwnRedis());
  const redis = look(own.url);
  const { enqueue, enqueueMany } = producerOf({ redisUrl: own.url });
  await enqueue(testJob());
  const before = (await redis.keys('*')).toSorted();

  await redis.config('SET', 'maxmemory', '1');
  for (const appId of [APP_ID, OTHER_APP_ID]) {
    await expect(enqueue(testJob({ appId }))).rejects.toThrow(QueueUnavailableError);
    const many = Array.from({ length: 5 }, () => testJob({ appId }));
    await expect(enqueueMany(many)).rejects.toThrow(QueueUnavailableError);
  }
  expect((await redis.keys('*')).toSorted()).toEqual(before);

  await redis.config('SET', 'maxmemory', '0');
  expect(await enqueue(testJob())).toBe('accepted');
  expect(await enqueue(testJob({ appId: OTHER_APP_ID }))).toBe('accepted');
});

test('a wrong password ends in QueueUnavailableError without it', async () => {
  const own = parts.use(await openOwnRedis());
  await own.lock('the-right-password');
  const errors: Error[] = [];
  const url = own.as(':the-wrong-password');
  const { enqueue } = producerOf({ redisUrl: url, timeoutMs: 500, onError: (error) => void errors.push(error) });
  const error: unknown = await enqueue(testJob()).catch((reason: unknown) => reason);
  expect(error).toBeInstanceOf(QueueUnavailableError);
  expect(inspect([error, errors], { depth: 9 })).not.toContain('the-wrong-password');
});

test.each([
  ['without a protocol', 'user:the-password@127.0.0.1'],
  ['with a port that is none', 'redis://:the-password@127.0.0.1:port'],
  ['of another protocol', 'http://:the-password@127.0.0.1'],
  ['with a badly encoded password', 'redis://:the-password%@127.0.0.1'],
])('an address %s is refused at once, without the password', (_what, redisUrl) => {
  let thrown: unknown;
  try {
    producerOf({ redisUrl });
  } catch (error) {
    thrown = error;
  }
  expect(thrown).toBeInstanceOf(Error);
  expect(inspect(thrown, { depth: 9, showHidden: true })).not.toContain('the-password');
});

const WRONG_OPTIONS: readonly [string, unknown][] = [
  ['mediaTtlMs', Number.NaN],
  ['mediaTtlMs', 72],
  ['mediaTtlMs', '72h'],
  ['timeoutMs', 0],
  ['timeoutMs', -1],
  ['timeoutMs', 0.5],
  ['timeoutMs', Number.POSITIVE_INFINITY],
  ['timeoutMs', 2 ** 31],
  ['timeoutMs', '2000'],
  ['appIds', APP_ID],
  ['appIds', []],
  ['appIds', [APP_ID, 'wx1']],
  ['appIds', new Set([APP_ID])],
  ['openIdKey', ''],
  ['openIdKey', 'the-secret-word'],
  ['openIdKey', Buffer.from('the-secret-word-of-all')],
  ['prefix', ''],
  ['prefix', 'a:b'],
  ['prefix', 7],
  ['prefix', null],
  ['waitReplicas', -1],
  ['waitReplicas', 0.5],
  ['waitReplicas', '1'],
  ['waitReplicas', 11],
  ['sentinelMaster', ''],
  ['onError', console],
  ['appIDs', [APP_ID]],
  ['toString', 'x'],
];

test.each(WRONG_OPTIONS)('%s: %j is refused at once, by its name', (name, value) => {
  const options = { redisUrl: 'redis://127.0.0.1', [name]: value };
  expect(() => createMediaProducer(options)).toThrow(TypeError);
  expect(() => createMediaProducer(options)).toThrow(new RegExp(`^${name}: .`));
  expect(() => createMediaProducer(options)).not.toThrow(/the-secret/);
});

test.each([undefined, null, 'redis://127.0.0.1'])('%j are no options', (options) => {
  expect(() => createMediaProducer(options as unknown as MediaProducerOptions)).toThrow(/^options: an object/);
});

test('an option that is undefined is absent', async () => {
  const names = Object.fromEntries(WRONG_OPTIONS.slice(0, -2).map(([name]) => [name, undefined]));
  await createMediaProducer({ ...names, redisUrl: 'redis://127.0.0.1:1' }).close();
});

test('a Node.js that is too old is told at once', () => {
  const own = Object.getOwnPropertyDescriptor(Promise, 'withResolvers');
  Reflect.deleteProperty(Promise, 'withResolvers');
  try {
    expect(() => createMediaProducer({ redisUrl: 'redis://127.0.0.1:1' })).toThrow(/^Node\.js 22\.19 or later/);
  } finally {
    Object.defineProperty(Promise, 'withResolvers', own ?? {});
  }
});

test('importing the producer does nothing, and loads neither the AWS SDK nor undici nor anything of the command line', async () => {
  const program = `
    import { registerHooks } from 'node:module';
    const urls = [];
    registerHooks({ load: (url, context, next) => { urls.push(url); return next(url, context); } });
    const names = Object.keys(await import(${JSON.stringify(source)}));
    console.log(JSON.stringify({ urls, names }));
  `;
  // It ends by itself: nothing was opened.
  const { stdout, stderr } = await run(process.execPath, ['--input-type=module', '--eval', program], {
    cwd: fileURLToPath(new URL('..', import.meta.url)),
    env: {},
  });
  const { urls, names } = JSON.parse(stdout) as { urls: string[]; names: string[] };
  expect(stderr).toBe('');
  expect(names.toSorted()).toEqual([
    'InvalidMediaJobError',
    'ProducerClosedError',
    'QueueUnavailableError',
    'createMediaProducer',
    'mediaJobsFromMessage',
  ]);
  expect(urls.filter((url) => /\/ioredis\/built\/index\.js$/.test(url))).toHaveLength(1);
  const packages = new Set(urls.flatMap((url) => /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(url)?.[1] ?? []));
  expect([...packages]).toEqual(expect.arrayContaining(['bullmq', 'ioredis', 'zod']));
  const foreign =
    /^(@aws-sdk\/|@smithy\/|@fastify\/|fastify$|saxes$|undici$|commander$|prom-client$|file-type$|fauxqs$|pino|cli-)/;
  expect([...packages].filter((name) => foreign.test(name))).toEqual([]);
  // Of the folders that have to do with these, only how records and keys look.
  const ours = urls.flatMap(
    (url) => /\/src\/((?:store|weixin|archive|operate|ingest|demo)\/.*|config\.ts)/.exec(url)?.[1] ?? [],
  );
  expect(ours.toSorted()).toEqual(['archive/attempt-record.ts', 'archive/object-metadata.ts', 'store/object-keys.ts']);
});
