import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { FAILURES } from '../../src/failure.ts';
import type { JobEvent } from '../../src/queue/job-events.ts';
import { testJob } from '../support/jobs.ts';
import { linesOf } from '../support/stack.ts';

const run = promisify(execFile);
const PASSWORD = 'hunter2-hunter2';

/** Runs a program with `log` and `logJobEvent` as a process of its own, and returns what it wrote. */
async function logged(program: string, level = 'trace'): Promise<{ lines: Record<string, unknown>[]; text: string }> {
  const source = (path: string): string => JSON.stringify(new URL(`../../src/${path}`, import.meta.url).href);
  const script = `
    import { createLogger } from ${source('log.ts')};
    import { Secret } from ${source('secret.ts')};
    import { logJobEvent } from ${source('operate/job-log.ts')};
    const log = createLogger(${JSON.stringify(level)}, 'worker');
    ${program}
  `;
  const { stdout, stderr } = await run(process.execPath, ['--input-type=module', '--eval', script], { env: {} });
  expect(stdout).toBe('');
  return { lines: linesOf(stderr).map((line) => JSON.parse(line) as Record<string, unknown>), text: stderr };
}

function logEvents(events: readonly JobEvent[], level?: string): ReturnType<typeof logged> {
  return logged(`for (const event of ${JSON.stringify(events)}) logJobEvent(log, event);`, level);
}

const job = testJob({ source: { openId: 'oPERSON', messageId: '24' } });
const failure = { code: 'ip-not-allowed', errcode: 40164, errmsg: 'invalid ip' } as const;
const stored = { key: 'media/x.jpg', sizeBytes: 5, sha256: 'ab', contentType: 'image/jpeg', created: true };
const object = { ...stored, metadata: {} };
const { appId, mediaId } = job;

const EVENTS: readonly [JobEvent, string, object][] = [
  [
    { type: 'archived', job, object, durationMs: 7, attempt: 2, marginMs: 9 },
    'info',
    {
      msg: 'archived',
      outcome: 'archived',
      appId,
      mediaId,
      messageId: '24',
      ...stored,
      durationMs: 7,
      attempt: 2,
      marginMs: 9,
    },
  ],
  [
    { type: 'retry', job, failure: { code: 'weixin-busy' }, durationMs: 7, attempt: 1, at: 0 },
    'warn',
    {
      outcome: 'retry',
      failure: { code: 'weixin-busy' },
      hint: FAILURES['weixin-busy'].hint,
      nextTryAt: '1970-01-01T00:00:00.000Z',
    },
  ],
  [
    { type: 'wait', job, failure, durationMs: 7, attempt: 1 },
    'warn',
    { outcome: 'wait', failure, hint: FAILURES['ip-not-allowed'].hint },
  ],
  [
    { type: 'dead', appId, mediaId, reason: 'media-expired', failure: { code: 'media-expired' }, attempt: 3 },
    'error',
    { outcome: 'dead', reason: 'media-expired', hint: FAILURES['media-expired'].hint, appId, mediaId },
  ],
  [{ type: 'duplicate', jobId: 'a' }, 'debug', { jobId: 'a' }],
  [
    { type: 'postponed', jobId: 'a', failure: { code: 'store-denied' } },
    'warn',
    { hint: FAILURES['store-denied'].hint },
  ],
  [{ type: 'released', jobId: 'a', cause: 'shutdown' }, 'info', { cause: 'shutdown' }],
  [{ type: 'released', jobId: 'a', cause: 'lock-lost' }, 'info', { cause: 'lock-lost' }],
  [
    { type: 'gate-closed', gate: { appId, reason: 'ip-not-allowed', closedAt: 0, probeAt: 0 } },
    'error',
    { reason: 'ip-not-allowed', hint: FAILURES['ip-not-allowed'].hint },
  ],
  [{ type: 'gate-opened', appId }, 'info', { appId }],
  [{ type: 'rescued', lane: 'media-x', jobIds: ['a'] }, 'warn', { jobIds: ['a'] }],
];

test('each event is a line of JSON with its level, its time and what an operator needs', async () => {
  const { lines, text } = await logEvents(EVENTS.map(([event]) => event));
  expect(lines).toHaveLength(EVENTS.length);
  for (const [index, [event, level, fields]] of EVENTS.entries()) {
    expect(lines[index], event.type).toMatchObject({ level, component: 'worker', ...fields });
    expect(lines[index]).toMatchObject({
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      msg: expect.any(String),
    });
  }
  expect(text).not.toContain('oPERSON');
});

test('lines below the level are left out', async () => {
  const { lines } = await logEvents(
    EVENTS.map(([event]) => event),
    'error',
  );
  expect(lines.map(({ level }) => level)).toEqual(['error', 'error']);
});

test('of an error its name, text, stack and code are written, and nothing that a library hangs onto it', async () => {
  const { lines, text } = await logged(`
    const command = { name: 'auth', args: ['${PASSWORD}'] };
    const inner = Object.assign(new Error('refused'), { command });
    const error = Object.assign(new Error('no connection', { cause: inner }), { command, code: 'ECONNRESET', lastNodeError: inner });
    logJobEvent(log, { type: 'fault', where: 'settle', error });
    logJobEvent(log, { type: 'fault', where: 'settle', error: 'a text' });
    log.warn({ err: error }, 'Redis connection error');
    log.warn(error, 'bare');
  `);
  expect(lines).toHaveLength(4);
  const err = {
    type: 'Error',
    message: expect.stringContaining('no connection'),
    code: 'ECONNRESET',
    stack: expect.any(String),
  };
  expect(lines[0]).toMatchObject({ where: 'settle', err });
  expect(lines[2]).toMatchObject({ err });
  expect(text).not.toContain(PASSWORD);
});

test('a secret is [redacted] wherever it stands in a line', async () => {
  const { lines, text } = await logged(`
    const secret = new Secret('${PASSWORD}');
    log.info({ secret, deep: { list: [secret] } }, \`a text with \${secret}\`);
  `);
  expect(lines).toMatchObject([
    { secret: '[redacted]', deep: { list: ['[redacted]'] }, msg: 'a text with [redacted]' },
  ]);
  expect(text).not.toContain(PASSWORD);
});
