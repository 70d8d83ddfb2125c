import { afterEach, beforeEach, expect, test } from 'vitest';
import { FAILURES } from '../../src/failure.ts';
import { DAY, HOUR, iso, SECOND } from '../../src/time.ts';
import { COMPILE_CACHE } from '../support/compile-cache.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { openStack, type Stack } from '../support/stack.ts';

let stack: Stack;

beforeEach(async () => {
  stack = await openStack({ env: COMPILE_CACHE });
});

afterEach(() => stack[Symbol.asyncDispose]());

const NOTHING = { archived: 0, retry: 0, wait: 0, dead: 0, bytes: 0 };

test('of an idle fleet is one line of JSON, all zero', async () => {
  const result = await stack.command(['status', '--json']);
  expect(result).toMatchObject({ code: 0, stderr: '' });
  expect(result.rows()).toEqual([
    {
      waiting: 0,
      delayed: 0,
      active: 0,
      failed: 0,
      deadLetters: 0,
      gates: [],
      workers: [],
      outbox: { entries: 0 },
      recentMinutes: 15,
      apps: [{ appId: APP_ID, waiting: 0, delayed: 0, active: 0, failed: 0, recent: NOTHING }],
    },
  ]);
});

test('tells what waits, what is late, which gates are closed and what the fleet does, by app', async () => {
  const { door, gates, fleet, throughput } = stack.queue;
  const oldest = Date.now() - 50 * HOUR;
  await door.admit([testJob({ receivedAt: iso(Date.now() - HOUR) }), testJob({ receivedAt: iso(oldest) })]);
  const others = await openStack({ env: { QUEUE_PREFIX: stack.config.redis.prefix, WEIXIN_APP_ID: OTHER_APP_ID } });
  await others.queue.door.admit([testJob({ appId: OTHER_APP_ID, receivedAt: iso(Date.now() - 4 * DAY) })]);
  await gates.close(OTHER_APP_ID, 'ip-not-allowed', {
    code: 'ip-not-allowed',
    errcode: 40164,
    errmsg: 'invalid ip 127.0.0.1, not in whitelist',
  });
  const worker = {
    id: 'w',
    host: 'a-host',
    pid: 7,
    version: '1',
    startedAt: iso(Date.now()),
    concurrency: 32,
    inFlight: 3,
  };
  await fleet.beat(worker);
  throughput.count(APP_ID, 'archived', 12);
  throughput.count(APP_ID, 'wait', 4);
  throughput.count(APP_ID, 'bytes', 3 * 1024 * 1024);
  await throughput.flush();

  const [json, text] = await Promise.all([stack.command(['status', '--json']), stack.command(['status'])]);
  const [report] = json.rows();
  expect(report).toMatchObject({ waiting: 3, delayed: 0, active: 0, workers: [worker] });
  const apps = report?.['apps'] as Record<string, unknown>[];
  expect(apps.map(({ appId, waiting }) => [appId, waiting])).toEqual([
    [APP_ID, 2],
    [OTHER_APP_ID, 1],
  ]);
  expect(apps[0]).toMatchObject({ recent: { ...NOTHING, archived: 12, wait: 4, bytes: 3 * 1024 * 1024 } });
  // Right within a minute, as its help says; the other one is what this test may take.
  const slack = 2 * 60;
  expect(Math.abs(Number(apps[0]?.['nearestDeadlineSeconds']) - (oldest + 3 * DAY - Date.now()) / SECOND)).toBeLessThan(
    slack,
  );
  expect(Math.abs(Number(apps[0]?.['oldestSeconds']) - (50 * HOUR) / SECOND)).toBeLessThan(slack);
  expect(Number(report?.['nearestDeadlineSeconds'])).toBeLessThan(0);
  expect(report?.['gates']).toMatchObject([
    { appId: OTHER_APP_ID, reason: 'ip-not-allowed', errcode: 40164, hint: FAILURES['ip-not-allowed'].hint },
  ]);

  expect(text).toMatchObject({ code: 0, stderr: '' });
  expect(report?.['outbox']).toMatchObject({ entries: 2, oldestSeconds: expect.any(Number) });
  expect(text.stdout).toMatch(
    /^waiting 3, delayed 0, active 0, failed 0, dead letters 0, workers 1\noutbox 2, the first for \d+ s\n/,
  );
  expect(text.stdout).toMatch(/^app +waiting +delayed +active +failed +nearest deadline$/m);
  expect(text.stdout).toMatch(new RegExp(`^${OTHER_APP_ID} +1 +0 +0 +0 +-.*\\(late\\)$`, 'm'));
  expect(text.stdout).toMatch(/^in 15 min +archived +bytes +retry +wait +dead$/m);
  expect(text.stdout).toMatch(new RegExp(`^${APP_ID} +12 +3\\.0 MiB +0 +4 +0$`, 'm'));
  // Numbers stand under the end of their heads.
  const [head = '', row = ''] = text.stdout.slice(text.stdout.indexOf('in 15 min')).split('\n');
  expect(row.indexOf(' 12') + 3).toBe(head.indexOf('archived') + 'archived'.length);
  const gate = text.stdout.slice(text.stdout.indexOf('closed gates'));
  expect(gate).toMatch(new RegExp(`^${OTHER_APP_ID} +closed for \\d+ s: ip-not-allowed$`, 'm'));
  expect(gate).toMatch(/^ +WeChat said: 40164 invalid ip 127\.0\.0\.1, not in whitelist\.$/m);
  expect(gate.replaceAll(/\s+/g, ' ')).toContain(FAILURES['ip-not-allowed'].hint);
  expect(gate).toMatch(/^ +Next probe \S+Z \(in .+\)\.$/m);
  expect(text.stdout).toMatch(/^worker +pid +version +active +of\na-host +7 +1 +3 +32$/m);
  for (const line of text.stdout.split('\n')) expect(line.length).toBeLessThan(80);
  await others[Symbol.asyncDispose]();
});

test('says when nobody has written the outbox to the catalog for long', async () => {
  const { redis, keys } = stack.queue;
  await redis.xadd(keys.outbox, `${Date.now() - 2 * HOUR}-0`, 't', 'media/1', 'r', '[]');
  const { stdout } = await stack.command(['status']);
  expect(stdout).toMatch(/^outbox 1, the first for 2 h \(late: does a catalog process run\?\)$/m);
});

test('needs neither bucket nor account', async () => {
  const env = { ARCHIVE_BUCKET: '', WEIXIN_APP_ID: '', WEIXIN_APP_SECRET: '' };
  const result = await stack.command(['status', '--json'], { env });
  expect(result).toMatchObject({ code: 0, stderr: '' });
  expect(result.rows()).toMatchObject([{ waiting: 0, apps: [] }]);
});
