import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { APP_SECRET } from '../support/jobs.ts';
import { type Environment, jobOf, linesOf, notArchived, openStack, type Stack, untilIdle } from '../support/stack.ts';
import { openS3Door, type S3Door } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

let door: S3Door;
let stack: Stack;

beforeAll(async () => {
  door = await openS3Door();
  stack = await openStack({ gateway: door.gateway });
});

afterAll(async () => {
  await stack[Symbol.asyncDispose]();
  await door[Symbol.asyncDispose]();
});

/** How a worker that can't begin ends: its exit code, and what it says beside its log. */
async function refused(env: Environment): Promise<{ code: number; said: string; log: string }> {
  const { code, stdout, stderr } = await stack.command(['worker'], { env });
  expect(stdout).toBe('');
  const isLog = (line: string): boolean => line.startsWith('{');
  const lines = linesOf(stderr);
  return { code, said: lines.filter((line) => !isLog(line)).join('\n'), log: lines.filter(isLog).join('\n') };
}

describe('a worker refuses to start, says once what to do, and ends with 1', () => {
  test('when the bucket is not there', async () => {
    const { code, said, log } = await refused({ ARCHIVE_BUCKET: 'no-such-bucket' });
    expect(code).toBe(1);
    expect(said).toContain('no-such-bucket');
    expect(said).toContain('Create it.');
    expect(said.split('\n')).toHaveLength(1);
    expect(log).toContain('"level":"fatal"');
    expect(log).not.toContain('worker started');
  });

  test('when the store refuses its credentials', async () => {
    door.answer({ status: 403, code: 'InvalidAccessKeyId' });
    const { code, said } = await refused({});
    door.answer(undefined);
    expect(code).toBe(1);
    expect(said).toContain('refuses our credentials');
    expect(said.split('\n')).toHaveLength(1);
  });

  test('when the bucket lies in another region', async () => {
    door.answer({ status: 301, code: 'PermanentRedirect', region: 'eu-west-1' });
    const { code, said } = await refused({});
    door.answer(undefined);
    expect(code).toBe(1);
    expect(said).toContain('Set AWS_REGION');
    expect(said).toContain('the bucket is in eu-west-1');
    expect(said.split('\n')).toHaveLength(1);
  });

  test('when Redis does not have the database of its address', async () => {
    const { code, said } = await refused({ REDIS_URL: `${stack.environment['REDIS_URL']}/99` });
    expect(code).toBe(1);
    expect(said).toContain('REDIS_URL names a database');
    expect(said.split('\n')).toHaveLength(1);
  });

  test('when its port is taken', async () => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const taken = createServer().listen(0, '127.0.0.1', resolve);
    await promise;
    const { port } = taken.address() as AddressInfo;
    const { code, said } = await refused({ METRICS_PORT: String(port) });
    taken.close();
    expect(code).toBe(1);
    expect(said).toContain(`METRICS_PORT ${port}`);
    expect(said).toContain('EADDRINUSE');
  });
});

test.each([
  { env: { ARCHIVE_BUCKET: '' }, names: ['ARCHIVE_BUCKET'] },
  { env: { WEIXIN_APP_ID: '', WEIXIN_APP_SECRET: '' }, names: ['WEIXIN_APP_ID'] },
  { env: { WEIXIN_APP_ID: 'wx1', WORKER_CONCURRENCY: '0' }, names: ['WEIXIN_APP_ID', 'WORKER_CONCURRENCY'] },
  { env: { WORKER_CONCURENCY: '4' }, names: ['WORKER_CONCURENCY', 'did you mean WORKER_CONCURRENCY?'] },
  { env: { WEIXIN_ACCOUNTS_FILE: '/no/such/file' }, names: ['WEIXIN_ACCOUNTS_FILE', '/no/such/file'] },
])('a worker with $env ends with 2 and names every mistake', async ({ env, names }) => {
  const { code, said, log } = await refused(env as Environment);
  expect(code).toBe(2);
  for (const name of names) expect(said).toContain(name);
  expect(log).toBe('');
  expect(said).not.toContain(APP_SECRET);
});

test('a worker that finds no Redis says so, waits for it, and then works', async () => {
  await using own = await openStack({ ownRedis: true });
  await own.redisServer().stop();
  const worker = own.worker();
  await worker.said('waiting for Redis: check REDIS_URL');
  await own.restartRedis();
  await worker.said('worker started');
  const media = own.addMedia(5);
  await eventually(() => (own.queue.redis.status === 'ready' ? true : undefined));
  await own.queue.door.admit(media.map(jobOf));
  await untilIdle(own);
  expect(await notArchived(own, media)).toEqual([]);
});

test('a worker that finds the store or WeChat away starts all the same, and saves what comes once they are back', async () => {
  await door.shut();
  stack.simulator.arm({ endpoint: 'token', action: { type: 'html', status: 502 }, times: 1 });
  const worker = stack.worker();
  await worker.said('worker started');
  await worker.said("can't be reached yet");
  await worker.said('no access_token for this app');
  await door.open();
  const media = stack.addMedia(5);
  await stack.queue.door.admit(media.map(jobOf));
  await untilIdle(stack);
  expect(await notArchived(stack, media)).toEqual([]);
});
