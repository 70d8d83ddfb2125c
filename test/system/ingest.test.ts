import { once } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, createConnection } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { simulatedMessage, simulatedPush } from '../../src/demo/weixin/message-push.ts';
import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import { startWorkerProcess, type WorkerProcess } from '../../src/demo/worker-process.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { eventually } from '../support/eventually.ts';
import { TOKEN } from '../support/ingest.ts';
import { APP_ID, APP_SECRET, testJob } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';
import { runCommand } from '../support/stack.ts';

vi.setConfig({ testTimeout: 90_000 });

let corner: TestRedis;

beforeAll(async () => {
  corner = await openTestRedis();
});

afterAll(() => corner[Symbol.asyncDispose]());

const processes: WorkerProcess[] = [];

afterEach(async () => {
  for (const { process: child } of processes) child.kill('SIGKILL');
  await Promise.all(processes.splice(0).map(({ exited }) => exited));
});

function environment(more: Record<string, string> = {}): Record<string, string> {
  return {
    REDIS_URL: corner.url,
    QUEUE_PREFIX: corner.prefix,
    WEIXIN_APP_ID: APP_ID,
    WEIXIN_APP_SECRET: APP_SECRET,
    HTTP_PORT: '0',
    ...COMPILE_CACHE,
    ...more,
  };
}

async function start(more: Record<string, string> = {}): Promise<{ ingest: WorkerProcess; port: number }> {
  const ingest = startWorkerProcess(environment({ API_TOKENS: TOKEN, ...more }), 'pipe', 'ingest');
  processes.push(ingest);
  await ingest.said('"msg":"ingest started"');
  return { ingest, port: Number(/"httpPort":(\d+)/.exec(ingest.log())?.[1]) };
}

/** A request of which all but the last byte has been sent. */
async function halfARequest(
  port: number,
  path = '/v1/media',
  body = JSON.stringify(testJob()),
): Promise<{ finish(): void; readonly answer: Promise<string> }> {
  const socket = createConnection({ port, host: '127.0.0.1' });
  let text = '';
  socket.on('data', (chunk) => {
    text += chunk.toString();
  });
  const ended = Promise.withResolvers<string>();
  socket.on('close', () => ended.resolve(text));
  socket.on('error', () => undefined);
  socket.write(
    `POST ${path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TOKEN}\r\ncontent-type: application/json\r\ncontent-length: ${body.length}\r\nexpect: 100-continue\r\n\r\n`,
  );
  // The server has begun with it.
  await once(socket, 'data');
  socket.write(body.slice(0, -1));
  return { finish: () => void socket.write(body.slice(-1)), answer: ended.promise };
}

describe('SIGTERM', () => {
  test('lets what is under way end, takes no more, and ends with 0', async () => {
    const { ingest, port } = await start();
    const half = await halfARequest(port);
    ingest.process.kill('SIGTERM');
    await ingest.said('"msg":"ingest stops"');
    await eventually(async () => {
      const refused = await fetch(`http://127.0.0.1:${port}/healthz`).catch((error: Error) => error);
      return refused instanceof Error ? true : undefined;
    });
    half.finish();
    const answer = await half.answer;
    expect(answer).toMatch(/HTTP\/1\.1 202 Accepted/);
    expect(answer).toMatch(/connection: close/i);
    expect(answer).toContain('"accepted":1');
    expect(await ingest.exited).toBe(0);
    expect(ingest.log()).not.toContain(TOKEN);
  });

  test('lets a push under way end with success', async () => {
    const { ingest, port } = await start({ WEIXIN_PUSH_TOKEN: 'token', WEIXIN_PUSH_MODE: 'plaintext' });
    const sender = { token: 'token', appId: APP_ID, mode: 'plaintext', format: 'xml' } as const;
    const message = simulatedMessage('image', { MediaId: newMediaId(), PicUrl: 'http://x' }, Date.now());
    const { query, body } = simulatedPush(message, sender, Date.now());
    const half = await halfARequest(port, `/weixin/${APP_ID}?${new URLSearchParams(query)}`, body);
    ingest.process.kill('SIGTERM');
    await ingest.said('"msg":"ingest stops"');
    half.finish();
    expect(await half.answer).toMatch(/HTTP\/1\.1 200 OK[\s\S]*success/);
    expect(await ingest.exited).toBe(0);
  });

  test('cuts off what has not ended by then', async () => {
    const { ingest, port } = await start({ SHUTDOWN_GRACE_SECONDS: '0.1' });
    const half = await halfARequest(port);
    ingest.process.kill('SIGTERM');
    expect(await ingest.exited).toBe(0);
    expect(await half.answer).not.toContain('202');
  });

  test('ends one that waits for Redis', async () => {
    const ingest = startWorkerProcess(environment({ REDIS_URL: 'redis://127.0.0.1:1' }), 'pipe', 'ingest');
    processes.push(ingest);
    await ingest.said('Redis connection error');
    ingest.process.kill('SIGTERM');
    expect(await ingest.exited).toBe(0);
  });
});

describe('it refuses to start', () => {
  async function refused(more: Record<string, string>): Promise<{ code: number; stderr: string }> {
    const { code, stdout, stderr } = await runCommand(['ingest'], { env: environment(more) });
    expect(stdout).toBe('');
    return { code, stderr };
  }

  test('with 2 when others could ask it without a token', async () => {
    const { code, stderr } = await refused({ HTTP_HOST: '0.0.0.0' });
    expect(code).toBe(2);
    expect(stderr).toContain('API_TOKENS');
  });

  test('with 2 when a token is too short, and does not repeat it', async () => {
    const { code, stderr } = await refused({ API_TOKENS: 'too-short' });
    expect(code).toBe(2);
    expect(stderr).not.toContain('too-short');
  });

  test('with 1 when its port is taken', async () => {
    const taken = createServer().listen(0, '127.0.0.1');
    await once(taken, 'listening');
    const { port } = taken.address() as AddressInfo;
    const { code, stderr } = await refused({ HTTP_PORT: String(port) });
    taken.close();
    expect(code).toBe(1);
    expect(stderr).toMatch(new RegExp(`HTTP_PORT ${port}.*EADDRINUSE`));
  });

  test('with 1 when Redis does not have the database of its address', async () => {
    const { code, stderr } = await refused({ REDIS_URL: `${corner.url}/99` });
    expect(code).toBe(1);
    expect(stderr).toContain('REDIS_URL names a database');
  });
});
