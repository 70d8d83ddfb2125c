import { expect, test, vi } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import { eventually } from '../support/eventually.ts';
import { OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { healthUrl, jobOf, openStack, type Stack, untilIdle } from '../support/stack.ts';
import { openStackOfTwoApps } from './more-apps.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

interface Answer {
  readonly status: number;
  readonly text: string;
}

async function ask(url: string): Promise<Answer> {
  const response = await fetch(url);
  return { status: response.status, text: await response.text() };
}

/** Waits until a worker says whether it is ready, as asked. */
async function untilReadiness(base: string, status: number): Promise<string> {
  return eventually(async () => {
    const answer = await ask(`${base}/readyz`).catch(() => undefined);
    return answer?.status === status ? answer.text : undefined;
  });
}

/** The values of a metric by their labels, as Prometheus reads them. */
function samples(text: string): Map<string, number> {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(' ');
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}

function addHanging(stack: Stack): void {
  stack.simulator.arm({ endpoint: 'media', action: { type: 'hang', where: 'body' } });
}

test('a worker is alive from its start, ready once it works, and not while Redis is away or it drains', async () => {
  await using stack = await openStack({ ownRedis: true });
  await stack.redisServer().stop();
  const port = await freePort();
  const base = `http://127.0.0.1:${port}`;
  const worker = stack.worker({ METRICS_PORT: String(port), SHUTDOWN_GRACE_SECONDS: '3600' });
  expect(await untilReadiness(base, 503)).toBe('starting or stopping\n');
  expect(await ask(`${base}/healthz`)).toEqual({ status: 200, text: 'ok\n' });
  expect(await ask(`${base}/nothing`)).toMatchObject({ status: 404 });

  await stack.restartRedis();
  expect(await untilReadiness(base, 200)).toBe('ok\n');
  await stack.redisServer().stop();
  expect(await untilReadiness(base, 503)).toBe('Redis is not connected\n');
  expect(await ask(`${base}/healthz`)).toMatchObject({ status: 200 });
  await stack.restartRedis();
  expect(await untilReadiness(base, 200)).toBe('ok\n');

  addHanging(stack);
  const [media] = stack.addMedia(1);
  if (media === undefined) throw new Error('no media');
  await eventually(() => (stack.queue.redis.status === 'ready' ? true : undefined));
  await stack.queue.door.admit([jobOf(media)]);
  await eventually(() => (stack.simulator.counts.media.size > 0 ? true : undefined));
  worker.process.kill('SIGTERM');
  expect(await untilReadiness(base, 503)).toBe('starting or stopping\n');
  expect(await ask(`${base}/healthz`)).toMatchObject({ status: 200 });
  worker.process.kill('SIGTERM');
  expect(await worker.exited).toBe(143);
});

test('a worker whose Redis is frozen is not ready, and need not be restarted', async () => {
  await using stack = await openStack({ ownRedis: true });
  const worker = stack.worker();
  await worker.said('worker started');
  const base = healthUrl(worker);
  expect(await untilReadiness(base, 200)).toBe('ok\n');
  stack.redisServer().process.kill('SIGSTOP');
  // The connection stands all the while.
  expect(await untilReadiness(base, 503)).toBe('Redis does not answer\n');
  expect(await ask(`${base}/healthz`)).toEqual({ status: 200, text: 'ok\n' });
  const metrics = await ask(`${base}/metrics`);
  expect(metrics.status).toBe(200);
  const found = samples(metrics.text);
  expect([found.get('weixin_media_redis_up'), found.get('weixin_media_archived_total')]).toEqual([0, 0]);
  expect(metrics.text).not.toMatch(/^weixin_media_(queue_depth|oldest_seconds)/m);
  stack.redisServer().process.kill('SIGCONT');
  expect(await untilReadiness(base, 200)).toBe('ok\n');
  await worker.stop(0);
});

test('every metric of the contract is served, with the labels and the numbers of what has happened', async () => {
  await using stack = await openStackOfTwoApps();
  const worker = stack.worker();
  await worker.said('worker started');
  const media = stack.addMedia(5, { sizeBytes: 1_000 });
  const [spoiled] = stack.addMedia(1, { sizeBytes: 1_000 });
  if (spoiled === undefined) throw new Error('no media');
  const { mediaId } = spoiled;
  stack.simulator.arm({ endpoint: 'media', mediaId, action: { type: 'truncate' }, times: 1 });
  const dead = stack.addMedia(2);
  for (const { mediaId: deadId } of dead)
    stack.simulator.arm({ endpoint: 'media', mediaId: deadId, action: { type: 'errcode', errcode: 40004 } });
  await stack.queue.door.admit([...media, spoiled, ...dead].map(jobOf));
  await untilIdle(stack);

  // Three hang and four wait behind a gate when the numbers are read.
  const waiting = stack.addMedia(4, { appId: OTHER_APP_ID, ageMs: 3_600_000 });
  stack.simulator.arm({ endpoint: 'media', appId: OTHER_APP_ID, action: { type: 'errcode', errcode: 45009 } });
  await stack.queue.door.admit(waiting.map(jobOf));
  await worker.said('gate closed');
  addHanging(stack);
  await stack.queue.door.admit(stack.addMedia(3).map(jobOf));
  const read = async (): Promise<Map<string, number>> => samples((await ask(`${healthUrl(worker)}/metrics`)).text);
  const found = await eventually(async () => {
    const now = await read();
    // The depths are as old as 10 s.
    const settled =
      now.get('weixin_media_in_flight') === 3 && now.get('weixin_media_queue_depth{state="active"}') === 3;
    return settled ? now : undefined;
  });

  expect(found.get('weixin_media_archived_total')).toBe(6);
  expect(found.get('weixin_media_bytes_total')).toBe(6_000);
  expect(found.get('weixin_media_failed_total{failure="body-truncated"}')).toBe(1);
  expect(found.get('weixin_media_failed_total{failure="media-type-unsupported"}')).toBe(2);
  expect(found.get('weixin_media_dead_total{reason="media-type-unsupported"}')).toBe(2);
  expect(found.get('weixin_media_attempt_seconds_count{outcome="archived"}')).toBe(6);
  expect(found.get('weixin_media_attempt_seconds_count{outcome="retry"}')).toBe(1);
  expect(found.get('weixin_media_attempt_seconds_count{outcome="dead"}')).toBe(2);
  expect(found.get('weixin_media_redis_up')).toBe(1);
  expect(found.get(`weixin_media_gate_closed{app="${OTHER_APP_ID}",reason="quota-exhausted"}`)).toBe(1);
  expect(found.get('weixin_media_token_refresh_total{kind="stable_token",result="issued"}')).toBe(1);
  expect(found.get('weixin_media_token_refresh_total{kind="token",result="issued"}')).toBe(1);
  const depth = (state: string): number => found.get(`weixin_media_queue_depth{state="${state}"}`) ?? Number.NaN;
  expect(depth('waiting') + depth('delayed')).toBe(waiting.length);
  expect(depth('failed')).toBe(0);
  // One priority bucket is some minutes wide.
  expect(found.get('weixin_media_oldest_seconds')).toBeGreaterThan(3_000);
  expect(found.get('weixin_media_nearest_deadline_seconds')).toBeLessThan(72 * 3_600);
  await worker.stop(0);
});

test('what is served has the names that dashboards and alerts rely on', async () => {
  await using stack = await openStack();
  const worker = stack.worker();
  await worker.said('worker started');
  const { text } = await ask(`${healthUrl(worker)}/metrics`);
  const served = [...text.matchAll(/^# TYPE (\S+) (\S+)/gm)].map(([, name, type]) => `${name} ${type}`);
  expect(served.sort()).toEqual([
    'weixin_media_archived_total counter',
    'weixin_media_attempt_seconds histogram',
    'weixin_media_bytes_total counter',
    'weixin_media_dead_total counter',
    'weixin_media_failed_total counter',
    'weixin_media_gate_closed gauge',
    'weixin_media_in_flight gauge',
    'weixin_media_memory_budget_bytes gauge',
    'weixin_media_memory_budget_used_bytes gauge',
    'weixin_media_nearest_deadline_seconds gauge',
    'weixin_media_oldest_seconds gauge',
    'weixin_media_queue_depth gauge',
    'weixin_media_redis_up gauge',
    'weixin_media_token_refresh_total counter',
  ]);
});

test('an app that nobody configured is told by /metrics and status as a closed gate, and its media wait', async () => {
  await using stack = await openStack();
  const worker = stack.worker();
  await worker.said('worker started');
  const job = testJob({ appId: OTHER_APP_ID, mediaId: newMediaId(), receivedAt: new Date().toISOString() });
  // By another producer, which knows that app.
  const other = stack.queue.lanes.lane(`media-${OTHER_APP_ID}`);
  await stack.redis.sadd(stack.queue.keys.lanes, OTHER_APP_ID);
  await other.add([{ id: `${OTHER_APP_ID}-${job.mediaId}`, data: job, priority: 1 }]);
  await worker.said('app-not-configured');
  const { text } = await ask(`${healthUrl(worker)}/metrics`);
  expect(samples(text).get(`weixin_media_gate_closed{app="${OTHER_APP_ID}",reason="app-not-configured"}`)).toBe(1);
  const [row] = (await stack.command(['status', '--json'])).rows();
  expect(row).toMatchObject({ gates: [{ appId: OTHER_APP_ID, reason: 'app-not-configured' }], waiting: 0, delayed: 1 });
});
