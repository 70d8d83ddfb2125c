import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { type ConfigWithStore, loadConfig } from '../config.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { EXIT } from '../operate/command-error.ts';
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
const TIMEOUT_MS = 90 * SECOND;
const POLL_MS = 100;
/** The statistics in Redis reach back this far; the demo is over long before. */
const COUNTED_MINUTES = 10;

/** What the demo reports; `verified` objects were read back and compared with what the simulator sent. */
interface DemoReport extends ScenarioNumbers {
  readonly seconds: number;
}

/**
 * `demo`: the whole line on one machine. A real redis-server, an embedded S3 server on a folder, a WeChat simulator and
 * two worker processes; some 300 media of all kinds, some of them in trouble.
 *
 * @param keep leaves everything running for a look, until Ctrl-C.
 * @returns 0 only if every number is what the scenario must give.
 */
export async function demo({ keep }: { readonly keep: boolean }, output: Output): Promise<number> {
  const startedAt = performance.now();
  const stop = stopOnSignals();
  const folder = join(process.cwd(), '.demo');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });

  await using parts = new AsyncDisposableStack();
  const redis = parts.use(
    await startRedisServer(await provideRedisServer(output.note), {
      directory: join(folder, 'redis'),
      appendOnly: true,
    }),
  );
  const s3 = parts.use(await startEmbeddedS3(BUCKET, join(folder, 'archive')));
  const simulator = await startWeixinSimulator();
  parts.defer(() => simulator.close());
  const scenario = prepareScenario(simulator);

  const environment = await environmentOf(folder, redis, s3, simulator);
  const config = loadConfig(environment, ['store', 'accounts']);
  const queue = parts.use(await openQueue(config));
  const opened = parts.use(openStore({ ...config.store, credentials: EMBEDDED_CREDENTIALS }, queue.deadLetterIndex));
  const workers = Array.from({ length: WORKERS }, () => startWorkerProcess(environment));
  parts.defer(async () => {
    await Promise.all(workers.map((worker) => worker.stop()));
  });

  const admitted = await queue.door.admit(scenario.jobs);
  const again = await queue.door.admit(scenario.again);
  await untilDone(queue, config, scenario, simulator, workers, stop.signal, output);
  // What was enqueued twice is archived by now, and known at the door as well.
  const late = await queue.door.admit(scenario.again);

  // Workers write their counters when they stop, else with each heartbeat.
  if (keep) await sleep(HEARTBEAT_MS + SECOND);
  else await Promise.all(workers.map((worker) => worker.stop()));
  const seconds = Math.round((performance.now() - startedAt) / 100) / 10;
  const counted = await countResults(queue, opened, scenario, output);
  const report: DemoReport = {
    enqueued: admitted.accepted + again.accepted + late.accepted,
    duplicates: again.duplicates,
    ...counted,
    tokenRefreshes: [...simulator.counts.tokens.values()].reduce((sum, calls) => sum + calls, 0),
    seconds,
  };
  const { seconds: _seconds, ...numbers } = report;
  const asExpected = isDeepStrictEqual(numbers, scenario.expected) && late.duplicates === scenario.again.length;
  output.result(report, () => describe(report, scenario.expected, folder));
  if (!asExpected) output.note(`not as expected: ${JSON.stringify(scenario.expected)}`);

  if (keep) await keepRunning(environment, s3, output, stop.signal);
  stop.release();
  return asExpected ? EXIT.done : EXIT.failed;
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

/** Shows progress until nothing waits any more; rotates a token under way. */
async function untilDone(
  queue: OpenQueue,
  config: ConfigWithStore,
  scenario: Scenario,
  simulator: WeixinSimulator,
  workers: readonly WorkerProcess[],
  stop: AbortSignal,
  output: Output,
): Promise<void> {
  const limit = AbortSignal.any([stop, AbortSignal.timeout(TIMEOUT_MS)]);
  const total = scenario.jobs.length;
  using progress = output.progress('demo', total);
  let shown = 0;
  let rotated = false;
  for (;;) {
    limit.throwIfAborted();
    const dead = workers.find(({ process: { exitCode, signalCode } }) => exitCode !== null || signalCode !== null);
    if (dead !== undefined) throw new Error(`a worker ended:\n${dead.log()}`);
    const done = total - (await openJobs(queue, config));
    progress.advance(done - shown);
    shown = done;
    if (!rotated && done >= total * ROTATE_AT_SHARE) {
      rotated = true;
      simulator.rotateToken(DEMO_APPS[0].appId);
    }
    if (done >= total) return;
    await sleep(POLL_MS, undefined, { signal: limit });
  }
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
  output: Output,
): Promise<Pick<ScenarioNumbers, 'archived' | 'deadLettered' | 'retries' | 'bytes' | 'verified'>> {
  const signal = AbortSignal.timeout(TIMEOUT_MS);
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

function describe(report: DemoReport, expected: ScenarioNumbers, folder: string): string {
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
  const archive = relative(process.cwd(), join(folder, 'archive'));
  return [
    table(['', 'is', 'must be'], rows),
    '',
    `The bucket lies in ${archive}/buckets/${BUCKET}/objects: media/ and dead-letters/.`,
    'Try next:',
    `  find ${archive} -name '*.json' -path '*dead-letters*' | head -1 | xargs cat`,
    '  npm run demo -- --keep      (stays up, so that status, dead-letters and show can be tried)',
  ].join('\n');
}

/** Leaves the stack up and says how to talk to it. */
async function keepRunning(
  environment: Readonly<Record<string, string>>,
  s3: EmbeddedS3,
  output: Output,
  stop: AbortSignal,
): Promise<void> {
  const settings = Object.entries({ ...environment, ...awsVariables(s3) }).map(
    ([name, value]) => `export ${name}='${value}'`,
  );
  await writeFile(join(process.cwd(), '.demo', 'env.sh'), `${settings.join('\n')}\n`);
  output.note(
    [
      '',
      'Everything is still running. In another shell, here:',
      '  . .demo/env.sh',
      '  npm run -s cli -- status',
      '  npm run -s cli -- dead-letters list',
      'Ctrl-C ends it.',
    ].join('\n'),
  );
  while (!stop.aborted) await sleep(SECOND, undefined, { signal: stop }).catch(() => undefined);
}
