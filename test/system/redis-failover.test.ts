import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, inject, test, vi } from 'vitest';
import { freePort, type RedisServer, startRedisServer } from '../../src/demo/redis-server.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { createMediaProducer, QueueUnavailableError } from '../../src/index.ts';
import { closeRedis, connectRedis, type RedisClient } from '../../src/redis/connect.ts';
import { Secret } from '../../src/secret.ts';
import { eventually } from '../support/eventually.ts';
import { jobOf, keysBelow, lettersOf, notArchived, openJobs, openStack, untilIdle } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 240_000 });

const MASTER = 'media';

/** A master, a replica of it, and a Sentinel that puts the replica in its place when it is gone. */
interface Failover extends AsyncDisposable {
  readonly sentinels: readonly { readonly host: string; readonly port: number }[];
  readonly master: RedisServer;
  readonly replica: RedisServer;
}

async function openFailover(): Promise<Failover> {
  await using parts = new AsyncDisposableStack();
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-failover-'));
  parts.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const executable = inject('redisExecutable');
  const start = async (name: string, ...args: string[]): Promise<RedisServer> => {
    const options = { directory: join(folder, name), appendOnly: true, arguments: args };
    return parts.use(await startRedisServer(executable, options));
  };
  const master = await start('master');
  const replica = await start('replica', '--replicaof', '127.0.0.1', String(master.port));
  await untilInSync(replica);

  const port = await freePort();
  const settings = [
    `port ${port}`,
    'bind 127.0.0.1',
    `dir ${folder}`,
    `sentinel monitor ${MASTER} 127.0.0.1 ${master.port} 1`,
    `sentinel down-after-milliseconds ${MASTER} 1500`,
    `sentinel failover-timeout ${MASTER} 10000`,
  ];
  const path = join(folder, 'sentinel.conf');
  await writeFile(path, `${settings.join('\n')}\n`);
  const sentinel = spawn(executable, [path, '--sentinel'], { stdio: 'ignore' });
  const ended = Promise.withResolvers<void>();
  sentinel.once('exit', () => ended.resolve());
  parts.defer(async () => {
    sentinel.kill('SIGKILL');
    await ended.promise;
  });
  const asking = connect(`redis://127.0.0.1:${port}`);
  parts.defer(() => closeRedis(asking));
  await eventually(async () => {
    const replicas = (await asking.call('SENTINEL', 'replicas', MASTER)) as unknown[];
    return replicas.length > 0 ? true : undefined;
  });

  const moved = parts.move();
  const sentinels = [{ host: '127.0.0.1', port }];
  return { sentinels, master, replica, [Symbol.asyncDispose]: () => moved.disposeAsync() };
}

function connect(url: string): RedisClient {
  return connectRedis({ url: new Secret(url), prefix: '', sentinelMaster: '' }, 'patient', 'test', () => undefined);
}

async function untilInSync({ url }: RedisServer): Promise<void> {
  const client = connect(url);
  await eventually(async () =>
    (await client.info('replication')).includes('master_link_status:up') ? true : undefined,
  );
  await closeRedis(client);
}

test('when a replica takes the place of its master, nothing that was accepted is lost, and the rest is handed in again', async () => {
  await using failover = await openFailover();
  const [sentinel] = failover.sentinels;
  await using stack = await openStack({
    env: {
      REDIS_SENTINELS: `127.0.0.1:${sentinel?.port}`,
      REDIS_SENTINEL_MASTER: MASTER,
      REDIS_WAIT_REPLICAS: '1',
      WORKER_LOCK_SECONDS: '2',
    },
  });
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  const { prefix } = stack.config.redis;
  await using parts = new AsyncDisposableStack();
  const open = (waitReplicas: number) => {
    const { sentinels } = failover;
    const producer = createMediaProducer({ sentinels, sentinelMaster: MASTER, prefix, waitReplicas });
    parts.defer(() => producer.close());
    return producer;
  };
  const producer = open(1);

  const accepted: SimulatedMedia[] = [];
  const refused: SimulatedMedia[] = [];
  let refusals = 0;
  const handIn = async (media: SimulatedMedia): Promise<void> => {
    try {
      await producer.enqueue(jobOf(media));
      accepted.push(media);
    } catch (error) {
      if (!(error instanceof QueueUnavailableError)) throw error;
      refused.push(media);
      refusals += 1;
    }
  };
  for (const media of stack.addMedia(150)) await handIn(media);
  expect(refused).toEqual([]);
  // In the middle of a burst.
  const burst = stack.addMedia(200);
  const handing = Promise.all(burst.map(handIn));
  failover.master.process.kill('SIGKILL');
  await handing;
  expect(refusals).toBeGreaterThan(0);

  // A master without a replica takes jobs, but nobody else has them: they are not accepted.
  const [left] = stack.addMedia(1);
  if (left === undefined) throw new Error('no media');
  await eventually(async () => {
    const error = await producer.enqueue(jobOf(left)).catch((reason: unknown) => reason);
    return error instanceof QueueUnavailableError && String(error.cause).includes('0 of 1 replicas') ? true : undefined;
  });
  // Who does without hands in what was refused.
  expect(await open(0).enqueueMany([...refused, left].map(jobOf))).toMatchObject({ rejected: [] });

  const media = [...accepted, ...refused, left];
  await untilIdle(stack, 120_000);
  expect(await notArchived(stack, media)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(media.length);
  expect(await lettersOf(stack)).toEqual([]);
  expect(await openJobs(stack)).toBe(0);
  for (const { process: child } of workers) expect(child.exitCode ?? child.signalCode).toBe(null);
});
