import type { ChildProcess } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { orAbort } from '../abort.ts';
import { type ConfigWithStore, loadConfig } from '../config.ts';
import { CommandError, EXIT } from '../operate/command-error.ts';
import { type OpenQueue, type OpenStore, openQueue, openStore } from '../operate/open-queue.ts';
import { byteCount, type Output, table } from '../operate/output.ts';
import { HEARTBEAT_MS } from '../queue/fleet.ts';
import { laneOf } from '../queue/lane.ts';
import { Secret } from '../secret.ts';
import { SECOND } from '../time.ts';
import { type EmbeddedS3, startEmbeddedS3 } from './embedded-s3.ts';
import { provideRedisServer, type RedisServer, startRedisServer } from './redis-server.ts';
import { DEMO_APPS, prepareScenario, type Scenario, type ScenarioNumbers } from './scenario.ts';
import { startWeixinSimulator, type WeixinSimulator } from './weixin/weixin-simulator.ts';
import { startWorkerProcess, type WorkerProcess } from './worker-process.ts';

const BUCKET = 'weixin-media';
const WORKERS = 2;
/** The token of the first app is rotated when so much is done. */
const ROTATE_AT_SHARE = 0.3;
/** The embedded store takes any. */
const EMBEDDED_CREDENTIALS = { accessKeyId: 'demo', secretAccessKey: new Secret('demo') };
/** For the archiving, and again for the counting and reading back. */
const LIMIT_MS = 90 * SECOND;
/** Workers that are idle end sooner; others have nothing to finish that the demo still wants. */
const WORKER_GRACE_MS = 5 * SECOND;
const POLL_MS = 100;
/** The statistics in Redis reach back this far; the demo is over long before. */
const COUNTED_MINUTES = 10;

/** What the demo reports; `verified` objects were read back and compared with what the simulator sent. */
interface DemoReport extends ScenarioNumbers {
  readonly seconds: number;
}

export interface DemoOptions {
  /** Leaves everything running for a look, until Ctrl-C. */
  readonly keep: boolean;
  /** How long the archiving may take. Default 90 s. */
  readonly limitMs?: number;
}

/**
 * `demo`: the whole line on one machine. A real redis-server, an embedded S3 server on a folder, a WeChat simulator and
 * two worker processes; some 300 media of all kinds, some of them in trouble.
 *
 * Everything lies in a new folder under the system's temporary one. It stays after a report, and goes with whatever else
 * was started when there is none.
 *
 * @returns 0 only if every number is what the scenario must give; 1 if not, also when the time is up; 128 and the number
 * of the signal (130 for Ctrl-C) when it was interrupted.
 */
export async function demo({ keep, limitMs = LIMIT_MS }: DemoOptions, output: Output): Promise<number> {
  const stop = stopOnInterruption();
  try {
    return await runDemo(keep, limitMs, stop.signal, output);
  } catch (error) {
    const { reason } = stop.signal;
    if (!(reason instanceof Interruption)) throw error;
    output.note(`interrupted by ${reason.signalName}: everything that was started has ended`);
    return reason.exitCode;
  } finally {
    stop.release();
  }
}

async function runDemo(keep: boolean, limitMs: number, stop: AbortSignal, output: Output): Promise<number> {
  const startedAt = performance.now();
  const executable = await provideRedisServer(output.note);
  await using folder = await temporaryFolder();
  using children = killedAtExit();
  await using redis = await startRedisServer(executable, { directory: join(folder.path, 'redis'), appendOnly: true });
  children.add(redis.process);
  await using s3 = await startEmbeddedS3(BUCKET, join(folder.path, 'archive'));
  const simulator = await startWeixinSimulator();
  await using _simulator = { [Symbol.asyncDispose]: () => simulator.close() };
  const scenario = prepareScenario(simulator);

  const environment = await environmentOf(folder.path, redis, s3, simulator);
  const config = loadConfig(environment, ['store', 'accounts']);
  await using queue = await openQueue(config);
  using opened = openStore({ ...config.store, credentials: EMBEDDED_CREDENTIALS }, queue);
  stop.throwIfAborted();
  await using workers = startWorkers(environment);
  for (const worker of workers.all) children.add(worker.process);

  const admitted = await orAbort(queue.door.admit(scenario.jobs), stop);
  const again = await orAbort(queue.door.admit(scenario.again), stop);
  const inTime = await untilDone(queue, config, scenario, simulator, workers.all, limitMs, stop, output);
  // What was enqueued twice is archived by now, and known at the door as well.
  const late = await orAbort(queue.door.admit(scenario.again), stop);

  // Workers write their counters when they stop, else with each heartbeat.
  if (keep) await sleep(HEARTBEAT_MS + SECOND, undefined, { signal: stop });
  else await workers.stop();
  const seconds = Math.round((performance.now() - startedAt) / 100) / 10;
  const counted = await countResults(queue, opened, scenario, stop, output);
  const report: DemoReport = {
    enqueued: admitted.accepted + again.accepted + late.accepted,
    duplicates: again.duplicates,
    ...counted,
    tokenRefreshes: [...simulator.counts.tokens.values()].reduce((sum, calls) => sum + calls, 0),
    seconds,
  };
  const { seconds: _seconds, ...numbers } = report;
  const asExpected = isDeepStrictEqual(numbers, scenario.expected) && late.duplicates === scenario.again.length;
  folder.keep();
  output.result(report, () => describe(report, scenario.expected, folder.path, keep));
  if (output.json) output.note(`everything lies in ${folder.path}`);
  if (!inTime) output.note(`not done within ${limitMs / SECOND} s`);
  if (!asExpected) output.note(`not as expected: ${JSON.stringify(scenario.expected)}`);

  if (keep) await keepRunning(folder.path, environment, s3, output, stop);
  return asExpected && inTime ? EXIT.done : EXIT.failed;
}

/** The process was asked to stop before the demo was over. */
class Interruption extends Error {
  override readonly name = 'Interruption';
  readonly signalName: NodeJS.Signals;
  /** As a shell has it. */
  readonly exitCode: number;

  constructor(signalName: NodeJS.Signals) {
    super(`received ${signalName}`);
    this.signalName = signalName;
    this.exitCode = 128 + constants.signals[signalName];
  }
}

/** Turns Ctrl-C, SIGTERM and a closed terminal into an abort; the second one ends the process at once. */
function stopOnInterruption(): { readonly signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    const interruption = new Interruption(name);
    if (controller.signal.aborted) process.exit(interruption.exitCode);
    controller.abort(interruption);
  };
  const names = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const name of names) process.on(name, onSignal);
  return {
    signal: controller.signal,
    release: () => {
      for (const name of names) process.off(name, onSignal);
    },
  };
}

/** A new folder, which goes again unless it is kept. */
async function temporaryFolder(): Promise<AsyncDisposable & { readonly path: string; keep(): void }> {
  const path = await mkdtemp(join(tmpdir(), 'weixin-media-demo-'));
  let kept = false;
  return {
    path,
    keep: () => {
      kept = true;
    },
    [Symbol.asyncDispose]: async () => {
      if (!kept) await rm(path, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

function startWorkers(
  environment: Readonly<Record<string, string>>,
): AsyncDisposable & { readonly all: readonly WorkerProcess[]; stop(): Promise<void> } {
  const all = Array.from({ length: WORKERS }, () => startWorkerProcess(environment));
  const stop = async (): Promise<void> => {
    await Promise.all(all.map((worker) => worker.stop(WORKER_GRACE_MS)));
  };
  return { all, stop, [Symbol.asyncDispose]: stop };
}

/** Takes along the processes that are still running when this one ends without the time to stop them. */
function killedAtExit(): Disposable & { add(child: ChildProcess): void } {
  const children: ChildProcess[] = [];
  const kill = (): void => {
    for (const child of children) child.kill('SIGKILL');
  };
  process.on('exit', kill);
  return { add: (child) => void children.push(child), [Symbol.dispose]: () => void process.off('exit', kill) };
}

async function environmentOf(
  folder: string,
  redis: RedisServer,
  s3: EmbeddedS3,
  simulator: WeixinSimulator,
): Promise<Record<string, string>> {
  const accounts = DEMO_APPS.map(({ appId, credential }, index) => ({
    appId,
    credential: { type: credential, secret: { env: `DEMO_APP_SECRET_${index + 1}` } },
  }));
  const accountsFile = join(folder, 'accounts.json');
  await writeFile(accountsFile, JSON.stringify({ accounts }, null, 2));
  return {
    REDIS_URL: redis.url,
    ARCHIVE_BUCKET: BUCKET,
    S3_FORCE_PATH_STYLE: 'true',
    ...awsVariables(s3),
    WEIXIN_ACCOUNTS_FILE: accountsFile,
    ...Object.fromEntries(DEMO_APPS.map(({ secret }, index) => [`DEMO_APP_SECRET_${index + 1}`, secret])),
    WEIXIN_API_BASE_URL: simulator.url,
    // The simulator's videos come from loopback, which is refused otherwise.
    WEIXIN_DOWNLOAD_ALLOW_HOSTS: '127.0.0.1',
    METRICS_PORT: '0',
    LOG_LEVEL: 'info',
  };
}

function awsVariables({ endpoint }: EmbeddedS3): Record<string, string> {
  return {
    AWS_ENDPOINT_URL_S3: endpoint,
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: EMBEDDED_CREDENTIALS.accessKeyId,
    AWS_SECRET_ACCESS_KEY: EMBEDDED_CREDENTIALS.secretAccessKey.reveal(),
  };
}

/**
 * Shows progress until nothing waits any more; rotates a token under way.
 *
 * @returns false when the time is up before.
 */
async function untilDone(
  queue: OpenQueue,
  config: ConfigWithStore,
  scenario: Scenario,
  simulator: WeixinSimulator,
  workers: readonly WorkerProcess[],
  limitMs: number,
  stop: AbortSignal,
  output: Output,
): Promise<boolean> {
  const total = scenario.jobs.length;
  const endsAt = performance.now() + limitMs;
  using progress = output.progress('demo', total);
  let shown = 0;
  let rotated = false;
  while (performance.now() < endsAt) {
    const dead = workers.find(({ process: { exitCode, signalCode } }) => exitCode !== null || signalCode !== null);
    if (dead !== undefined) throw new CommandError(`a worker ended:\n${dead.log()}`);
    const done = total - (await orAbort(openJobs(queue, config), stop));
    progress.advance(done - shown);
    shown = done;
    if (!rotated && done >= total * ROTATE_AT_SHARE) {
      rotated = true;
      simulator.rotateToken(DEMO_APPS[0].appId);
    }
    if (done >= total) return true;
    await sleep(POLL_MS, undefined, { signal: stop });
  }
  return false;
}

async function openJobs({ lanes }: OpenQueue, { accounts }: ConfigWithStore): Promise<number> {
  const counts = await Promise.all(accounts.map(({ appId }) => lanes.lane(laneOf(appId)).counts()));
  return counts.reduce((sum, { waiting, delayed, active }) => sum + waiting + delayed + active, 0);
}

/** Counts what came of the scenario, and reads every object back. */
async function countResults(
  queue: OpenQueue,
  { store }: OpenStore,
  scenario: Scenario,
  stop: AbortSignal,
  output: Output,
): Promise<Pick<ScenarioNumbers, 'archived' | 'deadLettered' | 'retries' | 'bytes' | 'verified'>> {
  const signal = AbortSignal.any([stop, AbortSignal.timeout(LIMIT_MS)]);
  const deadLettered: Record<string, number> = {};
  for await (const { reason } of queue.deadLetterIndex.list({})) deadLettered[reason] = (deadLettered[reason] ?? 0) + 1;

  let archived = 0;
  let bytes = 0;
  for await (const { sizeBytes } of store.list('media/', signal)) {
    archived += 1;
    bytes += sizeBytes;
  }
  using progress = output.progress('verify', scenario.media.length);
  const keys = await queue.markers.find(scenario.media.map(({ appId, mediaId }) => `${appId}-${mediaId}`));
  let verified = 0;
  for (const [index, media] of scenario.media.entries()) {
    const key = keys[index];
    const digest = key === undefined ? undefined : await store.digest(key, signal);
    if (digest?.ok === true && digest.value?.sha256 === media.bytes.sha256) verified += 1;
    progress.advance(1);
  }
  const done = await queue.throughput.read(COUNTED_MINUTES);
  const retries = [...done.values()].reduce((sum, { retry }) => sum + retry, 0);
  return { archived, deadLettered, retries, bytes, verified };
}

function describe(report: DemoReport, expected: ScenarioNumbers, folder: string, keep: boolean): string {
  const rows: [string, string | number, string | number][] = [
    ['media enqueued', report.enqueued, expected.enqueued],
    ['duplicates recognised', report.duplicates, expected.duplicates],
    ['archived', report.archived, expected.archived],
    ...Object.entries(expected.deadLettered).map(([reason, count]): [string, number, number] => [
      `dead letters, ${reason}`,
      report.deadLettered[reason as keyof typeof expected.deadLettered] ?? 0,
      count,
    ]),
    ['retries', report.retries, expected.retries],
    ['token refreshes', report.tokenRefreshes, expected.tokenRefreshes],
    ['bytes', byteCount(report.bytes), byteCount(expected.bytes)],
    ['verified by SHA-256', report.verified, expected.verified],
    ['seconds', report.seconds, ''],
  ];
  const archive = join(folder, 'archive');
  return [
    table(['', 'is', 'must be'], rows),
    '',
    `The bucket lies in ${archive}/buckets/${BUCKET}/objects: media/ and dead-letters/.`,
    'Try next:',
    `  find ${archive} -name '*.json' -path '*dead-letters*' | head -1 | xargs cat`,
    ...(keep ? [] : ['  npm run demo -- --keep      (stays up, so that status, dead-letters and show can be tried)']),
    `  rm -r ${folder}      (when you have seen enough)`,
  ].join('\n');
}

/** Leaves the stack up and says how to talk to it. */
async function keepRunning(
  folder: string,
  environment: Readonly<Record<string, string>>,
  s3: EmbeddedS3,
  output: Output,
  stop: AbortSignal,
): Promise<void> {
  const settings = Object.entries({ ...environment, ...awsVariables(s3) }).map(
    ([name, value]) => `export ${name}='${value}'`,
  );
  await writeFile(join(folder, 'env.sh'), `${settings.join('\n')}\n`);
  output.note(
    [
      '',
      'Everything is still running. In another shell, here:',
      `  . ${folder}/env.sh`,
      '  npm run -s cli -- status',
      '  npm run -s cli -- dead-letters list',
      '  npm run catalog      (Ctrl-C ends it, and all rows are there), then:',
      '  npm run -s cli -- query "select kind, count(*) from media group by kind"',
      'Ctrl-C ends it.',
    ].join('\n'),
  );
  while (!stop.aborted) await sleep(SECOND, undefined, { signal: stop }).catch(() => undefined);
}
