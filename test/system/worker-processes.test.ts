import { execFile } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test, vi } from 'vitest';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { WorkerProcess } from '../../src/demo/worker-process.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { eventually } from '../support/eventually.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { APP_ID, APP_SECRET } from '../support/jobs.ts';
import { type Environment, jobOf, linesOf, logLines, openStack, type Stack, untilIdle } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const run = promisify(execFile);

const PROCESSES = 2;
const SLOTS = 2;
const env = {
  WORKER_PROCESSES: String(PROCESSES),
  WORKER_CONCURRENCY: String(SLOTS),
  WORKER_LOCK_SECONDS: '2',
  SHUTDOWN_GRACE_SECONDS: '1',
};

/** The supervisor and its workers, none of which outlives the test. */
interface Supervised extends WorkerProcess, AsyncDisposable {
  /** The newest of each place. */
  pids(): number[];
}

function supervised(stack: Stack, more: Environment = {}): Supervised {
  const supervisor = stack.worker(more);
  const started = (): Record<string, unknown>[] => logLines(supervisor, 'worker process started');
  return {
    ...supervisor,
    pids: () => [...new Map(started().map(({ process: index, pid }) => [index, Number(pid)])).values()],
    [Symbol.asyncDispose]: async () => {
      // First, so that it starts no more of them.
      supervisor.process.kill('SIGKILL');
      await supervisor.exited;
      for (const { pid } of started()) if (await isRunning(Number(pid))) process.kill(Number(pid), 'SIGKILL');
    },
  };
}

/** False for a zombie too, which nobody may be there to bury. */
async function isRunning(pid: number): Promise<boolean> {
  return (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')) !== '';
}

async function untilGone(pids: readonly number[]): Promise<void> {
  await eventually(async () => ((await Promise.all(pids.map(isRunning))).includes(true) ? undefined : true));
}

async function untilSaid(worker: WorkerProcess, message: string, times: number): Promise<void> {
  await eventually(() => (logLines(worker, message).length >= times ? true : undefined));
}

/** Hands media in whose bytes come so slowly that each worker is in the middle of some for a while. */
async function begin(stack: Stack): Promise<SimulatedMedia[]> {
  stack.simulator.arm({ endpoint: 'media', action: { type: 'drip', chunkBytes: 4_000, everyMs: 50 } });
  const media = stack.addMedia(40, { sizeBytes: 60_000 });
  await stack.queue.door.admit(media.map(jobOf));
  await eventually(() => (stack.simulator.counts.media.size >= PROCESSES * SLOTS ? true : undefined));
  return media;
}

/** Hands media in whose bytes never come, more than there are slots, and resolves when all workers are full of them. */
async function fill(stack: Stack): Promise<SimulatedMedia[]> {
  stack.simulator.disarm();
  stack.simulator.arm({ endpoint: 'media', action: { type: 'hang', where: 'body' } });
  const before = stack.simulator.counts.media.size;
  const media = stack.addMedia(20);
  await stack.queue.door.admit(media.map(jobOf));
  await eventually(() => (stack.simulator.counts.media.size >= before + PROCESSES * SLOTS ? true : undefined));
  return media;
}

/** The lane as it is when all jobs were handed back. */
async function expectAllHandedBack({ queue }: Stack, media: readonly SimulatedMedia[]): Promise<void> {
  const { active, waiting, delayed } = await queue.lanes.lane(laneOf(APP_ID)).counts();
  expect({ active, open: waiting + delayed }).toEqual({ active: 0, open: media.length });
}

async function expectSaved(stack: Stack, media: readonly SimulatedMedia[], workers: WorkerProcess[]): Promise<void> {
  await untilIdle(stack);
  await expectEachEndedOnce(stack, { saved: media, workers });
}

/** The first of as many free ports, none of them one that the system gives to a connection meanwhile. */
async function freePorts(count: number): Promise<number> {
  return eventually(async () => {
    const first = randomInt(20_000, 30_000);
    const held = await Promise.allSettled(Array.from({ length: count }, (_, index) => hold(first + index)));
    for (const port of held) if (port.status === 'fulfilled') port.value.close();
    return held.every(({ status }) => status === 'fulfilled') ? first : undefined;
  });
}

async function hold(port: number): Promise<Server> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const server = createServer().once('error', reject).listen(port, '127.0.0.1', resolve);
  await promise;
  return server;
}

test('several workers share the work, each with its own id, slots and port, and whole lines in one log', async () => {
  await using stack = await openStack({ env });
  const port = await freePorts(PROCESSES);
  await using supervisor = supervised(stack, { METRICS_PORT: String(port) });
  await expectSaved(stack, await begin(stack), [supervisor]);
  await fill(stack);

  const [report] = (await stack.command(['status', '--json'])).rows() as [{ workers: { id: string; pid: number }[] }];
  expect(report.workers.map(({ pid }) => pid).toSorted()).toEqual(supervisor.pids().toSorted());
  expect(new Set(report.workers.map(({ id }) => id)).size).toBe(PROCESSES);
  for (let index = 0; index < PROCESSES; index += 1) {
    const metrics = await fetch(`http://127.0.0.1:${port + index}/metrics`).then((answer) => answer.text());
    expect(metrics).toContain(`\nweixin_media_in_flight ${SLOTS}\n`);
  }
  supervisor.process.kill('SIGTERM');
  expect(await supervisor.exited).toBe(0);
  for (const line of linesOf(supervisor.log())) expect(JSON.parse(line)).toHaveProperty('msg');
});

describe('a worker that ends', () => {
  test('by a kill is replaced, after a pause that grows, and nothing is lost', async () => {
    await using stack = await openStack({ env });
    await using supervisor = supervised(stack);
    const media = await begin(stack);
    for (const deaths of [1, 2]) {
      await untilSaid(supervisor, 'worker started', PROCESSES + deaths - 1);
      const [victim = 0, ...others] = supervisor.pids();
      process.kill(victim, 'SIGKILL');
      await untilSaid(supervisor, 'worker started', PROCESSES + deaths);
      expect(supervisor.pids().slice(1)).toEqual(others);
      expect(supervisor.pids()[0]).not.toBe(victim);
    }
    const ended = logLines(supervisor, 'worker ended');
    const bySignal = { process: 0, signal: 'SIGKILL', code: null, level: 'error' };
    expect(ended).toMatchObject([
      { ...bySignal, pauseMs: 1_000 },
      { ...bySignal, pauseMs: 2_000 },
    ]);
    await expectSaved(stack, media, [supervisor]);
    supervisor.process.kill('SIGTERM');
    expect(await supervisor.exited).toBe(0);
  });

  test('by a signal to stop is replaced too', async () => {
    await using stack = await openStack({ env });
    await using supervisor = supervised(stack);
    await untilSaid(supervisor, 'worker started', PROCESSES);
    process.kill(supervisor.pids()[1] ?? 0, 'SIGTERM');
    await untilSaid(supervisor, 'worker started', PROCESSES + 1);
    expect(logLines(supervisor, 'worker ended')).toMatchObject([{ process: 1, code: 0, signal: null }]);
  });

  test('and can not be started again is tried again, while the others work', async () => {
    await using stack = await openStack({ env });
    const path = join(stack.folder, 'accounts.json');
    const credential = { type: 'stable_token', secret: { env: 'THE_SECRET' } };
    const accounts = JSON.stringify({ accounts: [{ appId: APP_ID, credential }] });
    await writeFile(path, accounts);
    const own = { WEIXIN_APP_ID: '', WEIXIN_APP_SECRET: '', WEIXIN_ACCOUNTS_FILE: path, THE_SECRET: APP_SECRET };
    await using supervisor = supervised(stack, own);
    await untilSaid(supervisor, 'worker started', PROCESSES);
    await writeFile(path, accounts.slice(1));
    process.kill(supervisor.pids()[1] ?? 0, 'SIGKILL');
    await untilSaid(supervisor, 'worker ended', 2);
    expect(logLines(supervisor, 'worker ended')[1]).toMatchObject({ process: 1, code: 2, signal: null });
    await writeFile(path, accounts);
    await untilSaid(supervisor, 'worker started', PROCESSES + 1);
    supervisor.process.kill('SIGTERM');
    expect(await supervisor.exited).toBe(0);
  });

  test('and can not be begun, for want of file descriptors, is tried again', async () => {
    await using stack = await openStack({ env });
    await using supervisor = supervised(stack);
    await untilSaid(supervisor, 'worker started', PROCESSES);
    // Below what is open: whatever is opened from now on fails.
    await run('prlimit', [`--pid=${supervisor.process.pid}`, '--nofile=10:']);
    process.kill(supervisor.pids()[0] ?? 0, 'SIGKILL');
    await untilSaid(supervisor, 'worker ended', 2);
    expect(logLines(supervisor, 'worker ended')[1]).toMatchObject({ process: 0, err: { code: 'EMFILE' } });
    await run('prlimit', [`--pid=${supervisor.process.pid}`, '--nofile=1024:']);
    await untilSaid(supervisor, 'worker started', PROCESSES + 1);
    supervisor.process.kill('SIGTERM');
    expect(await supervisor.exited).toBe(0);
  });
});

describe('a first start that fails', () => {
  test('for its configuration ends with 2, and is told once', async () => {
    await using stack = await openStack({ env });
    const { code, stderr } = await stack.command(['worker'], { env: { ARCHIVE_BUCKET: '' } });
    expect(code).toBe(2);
    expect(stderr.match(/ARCHIVE_BUCKET: received nothing/g)).toHaveLength(1);
    expect(stderr).not.toContain('worker process started');
  });

  test('for a port that another program has ends all with 1', async () => {
    await using stack = await openStack({ env });
    const port = await freePorts(PROCESSES);
    const taken = await hold(port + 1);
    await using supervisor = supervised(stack, { METRICS_PORT: String(port) });
    expect(await supervisor.exited).toBe(1);
    taken.close();
    expect(supervisor.log()).toContain(`METRICS_PORT ${port + 1} on 127.0.0.1 can't be listened on (EADDRINUSE)`);
    expect(supervisor.log()).toContain('\nworker 2 of 2 ended with exit code 1 before it was ready; it has said why\n');
    expect(logLines(supervisor, 'worker ended')).toEqual([]);
    await untilGone(supervisor.pids());
  });

  test('for its bucket ends all with 1', async () => {
    await using stack = await openStack({ env });
    const { code, stderr } = await stack.command(['worker'], { env: { ARCHIVE_BUCKET: 'no-such-bucket' } });
    expect(code).toBe(1);
    expect(stderr).toContain('Create it.');
    expect(stderr).not.toContain('is started again');
  });
});

describe('a stop', () => {
  test('of the supervisor stops all: what they have in hand is handed back, and it ends with 0', async () => {
    await using stack = await openStack({ env });
    await using supervisor = supervised(stack);
    const media = await fill(stack);
    supervisor.process.kill('SIGTERM');
    expect(await supervisor.exited).toBe(0);
    await untilGone(supervisor.pids());
    expect(logLines(supervisor, 'worker stopped')).toHaveLength(PROCESSES);
    expect(logLines(supervisor, 'put back')).toHaveLength(PROCESSES * SLOTS);
    await expectAllHandedBack(stack, media);
    stack.simulator.disarm();
    const after = stack.worker({ WORKER_PROCESSES: '1' });
    await expectSaved(stack, media, [supervisor, after]);
  });

  test.each(['before', 'after'])('that reaches the workers as well, %s the supervisor, is one stop', async (when) => {
    await using stack = await openStack({ env });
    await using supervisor = supervised(stack);
    const media = await fill(stack);
    const signalWorkers = (): void => {
      for (const pid of supervisor.pids()) process.kill(pid, 'SIGINT');
    };
    if (when === 'before') signalWorkers();
    else supervisor.process.kill('SIGINT');
    await untilSaid(supervisor, 'worker stops', PROCESSES);
    if (when === 'before') supervisor.process.kill('SIGINT');
    else signalWorkers();
    expect(await supervisor.exited).toBe(0);
    expect(logLines(supervisor, 'put back')).toHaveLength(PROCESSES * SLOTS);
    await expectAllHandedBack(stack, media);
  });

  test.each(['all', 'the supervisor alone'])('of %s before the workers listen ends with 0', async (whom) => {
    await using stack = await openStack({ env });
    await using supervisor = supervised(stack);
    await untilSaid(supervisor, 'worker process started', PROCESSES);
    if (whom === 'all') for (const pid of supervisor.pids()) process.kill(pid, 'SIGINT');
    supervisor.process.kill('SIGINT');
    expect(await supervisor.exited).toBe(0);
    await untilGone(supervisor.pids());
    expect(logLines(supervisor, 'workers that do not end are killed')).toEqual([]);
  });

  test('a second time ends all at once', async () => {
    await using stack = await openStack({ env: { ...env, SHUTDOWN_GRACE_SECONDS: '3600' } });
    await using supervisor = supervised(stack);
    await fill(stack);
    supervisor.process.kill('SIGTERM');
    await untilSaid(supervisor, 'worker stops', PROCESSES);
    supervisor.process.kill('SIGTERM');
    expect(await supervisor.exited).toBe(143);
    await untilGone(supervisor.pids());
  });

  test('that a worker does not follow has it killed, and ends with 1', async () => {
    await using stack = await openStack({ env });
    await using supervisor = supervised(stack);
    await untilSaid(supervisor, 'worker started', PROCESSES);
    process.kill(supervisor.pids()[0] ?? 0, 'SIGSTOP');
    supervisor.process.kill('SIGTERM');
    expect(await supervisor.exited).toBe(1);
    await untilGone(supervisor.pids());
    expect(supervisor.log()).toContain('\nworker 1 of 2 ended with SIGKILL when it was asked to stop\n');
  });
});

test('workers whose supervisor is killed stop as at SIGTERM', async () => {
  await using stack = await openStack({ env });
  await using supervisor = supervised(stack);
  const media = await fill(stack);
  supervisor.process.kill('SIGKILL');
  await untilGone(supervisor.pids());
  await untilSaid(supervisor, 'put back', PROCESSES * SLOTS);
  await expectAllHandedBack(stack, media);
});
