/**
 * Measures what a lane an app costs and brings, beside one queue for all apps that BullMQ's own worker serves.
 *
 *   npm run bench:lanes -- [--jobs N] [--backlog N] [--repeats N] [--concurrency N] [--seconds N] [--json]
 *
 * One redis-server, one worker at a time, jobs that do nothing or just take time. Prints Markdown tables: jobs a second,
 * the cost of an idle worker, the wait of a small tenant behind a large one, and the cost of a closed gate.
 */

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { provideRedisServer, startRedisServer } from '../../../src/demo/redis-server.ts';
import { positiveNumber, positiveWholeNumber } from '../../../src/operate/option-parsers.ts';
import { benchOptions } from '../bench-options.ts';
import { markdownTable, whole } from '../markdown-table.ts';
import { type Contender, type OpenContender, oneQueue, ourLanes } from './contender.ts';
import { appIds, measureFairness, measureGate, measureIdle, measureThroughput, type Throughput } from './measure.ts';

const { values, read } = benchOptions('bench:lanes', {
  jobs: { type: 'string', default: '5000' },
  backlog: { type: 'string', default: '100000' },
  repeats: { type: 'string', default: '3' },
  concurrency: { type: 'string', default: '32' },
  seconds: { type: 'string', default: '5' },
  json: { type: 'boolean' },
});
const jobs = read('jobs', positiveWholeNumber);
const backlog = read('backlog', positiveWholeNumber);
const repeats = read('repeats', positiveWholeNumber);
const concurrency = read('concurrency', positiveWholeNumber);
const seconds = read('seconds', positiveNumber);

const OURS = 'a lane an app';
const THEIRS = 'one queue, BullMQ’s worker';
/** How long a job takes where it takes time: little, so that the large backlog is worked off in a bounded time. */
const JOB_MS = 3;
/** How often the small tenant comes to the lanes; to the one queue once, since it waits for the whole backlog. */
const ROUNDS = 5;

await using parts = new AsyncDisposableStack();
const directory = await mkdtemp(join(tmpdir(), 'weixin-media-bench-'));
parts.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
const server = parts.use(
  await startRedisServer(await provideRedisServer(console.error), { directory, appendOnly: false }),
);

async function withContender<T>(open: OpenContender, measure: (contender: Contender) => Promise<T>): Promise<T> {
  await using contender = open(server.url);
  return await measure(contender);
}

const table = (head: readonly string[]) => markdownTable(head, values.json);
const throughputRow = table([
  'jobs that do nothing',
  'apps',
  'jobs a second',
  'Redis commands a job',
  'Redis CPU a job',
]);
const rivals = [
  { name: THEIRS, open: oneQueue, apps: 1 },
  ...[1, 10, 100, 1_000].map((apps) => ({ name: OURS, open: ourLanes, apps })),
];
const runs = new Map(rivals.map((rival): [typeof rival, Throughput[]] => [rival, []]));
// In turn, so that a noisy moment of the machine does not strike one of them alone.
for (let left = repeats; left > 0; left -= 1) {
  for (const [{ open, apps }, measured] of runs) {
    measured.push(await withContender(open, (it) => measureThroughput(it, appIds(apps), jobs, concurrency)));
  }
}
for (const [{ name, apps }, measured] of runs) {
  const jobsPerSecond = median(measured.map((run) => run.jobsPerSecond));
  const commandsPerJob = median(measured.map((run) => run.commandsPerJob));
  const redisCpuMsPerJob = median(measured.map((run) => run.redisCpuMsPerJob));
  throughputRow({ measure: 'throughput', queue: name, apps, jobsPerSecond, commandsPerJob, redisCpuMsPerJob }, [
    name,
    whole(apps),
    whole(jobsPerSecond),
    commandsPerJob.toFixed(1),
    `${redisCpuMsPerJob.toFixed(3)} ms`,
  ]);
}

const idleRow = table(['a worker with nothing to do', 'apps', 'Redis commands a second', 'Redis CPU']);
for (const { name, open, apps } of rivals.filter((rival) => rival.apps !== 10)) {
  const load = await withContender(open, (it) => measureIdle(it, appIds(apps), seconds));
  idleRow({ measure: 'idle', queue: name, apps, ...load }, [name, whole(apps), perSecond(load), cpuShare(load)]);
}

const fairnessRow = table([
  `ten jobs behind ${whole(backlog)}`,
  'waited: half of them',
  'the longest',
  'jobs of the large tenant begun meanwhile, at most',
]);
for (const { name, open, rounds } of [
  { name: OURS, open: ourLanes, rounds: ROUNDS },
  { name: THEIRS, open: oneQueue, rounds: 1 },
]) {
  const options = { backlog, concurrency, jobMs: JOB_MS, rounds };
  const { waitsMs, overtakenBy } = await withContender(open, (it) => measureFairness(it, options));
  const [half, longest] = [median(waitsMs), waitsMs.at(-1) ?? 0];
  fairnessRow({ measure: 'fairness', queue: name, backlog, medianMs: half, maxMs: longest, overtakenBy }, [
    name,
    inSeconds(half),
    inSeconds(longest),
    whole(overtakenBy),
  ]);
}

const gateRow = table([
  `a closed gate before ${whole(backlog)}`,
  'Redis commands a second',
  'Redis CPU',
  'jobs taken and put back a second',
]);
for (const { name, open } of [
  { name: OURS, open: ourLanes },
  { name: `${THEIRS}, the first ${seconds} s`, open: oneQueue },
]) {
  const cost = await withContender(open, (it) => measureGate(it, backlog, concurrency, seconds));
  gateRow({ measure: 'gate', queue: name, backlog, ...cost }, [
    name,
    perSecond(cost),
    cpuShare(cost),
    whole(cost.taken / cost.seconds),
  ]);
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
}

function perSecond(load: { readonly commands: number; readonly seconds: number }): string {
  return whole(load.commands / load.seconds);
}

function cpuShare(load: { readonly cpuMs: number; readonly seconds: number }): string {
  return `${(load.cpuMs / load.seconds / 10).toFixed(1)} %`;
}

function inSeconds(ms: number): string {
  return `${(ms / 1_000).toFixed(2)} s`;
}
