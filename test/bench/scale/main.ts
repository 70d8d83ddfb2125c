/**
 * Measures what stays the same however much there is: with more jobs, more apps, more worker processes.
 *
 *   npm run bench:scale -- [--backlog 1000,100000,1000000] [--apps 1,10,1000] [--processes 1,2,4] [--jobs N]
 *                          [--samples N] [--only backlog,apps,processes,cost,latency] [--json]
 *
 * The real worker, a redis-server with an append-only file, nginx with pictures of 64 KiB in WeChat's place and one that
 * reads and forgets in the store's. Of each backlog as many jobs are archived and timed as `--jobs` says; the rest waits.
 * Before that each worker has archived some 4,000, so that it is warm; it is stopped while the backlog is handed in.
 *
 * `cost` is counted, not timed: the commands that a worker sends to Redis for a media, what their scripts call, the bytes
 * to and fro, what the append-only file grows by, the entry in the outbox, and the lines of the log.
 *
 * `latency` is a picture of 200 KiB at a time, in a system that has nothing else to do: this process is WeChat and pushes its
 * message, encrypted and signed, by HTTP to an ingest process, and a worker archives it. It tells how long it takes from the
 * push until the row of the archived media lies in the outbox and is seen there; how long until the push is answered
 * `success`, beside that, since the worker does not wait for the answer; and of what the whole is made: until the door has
 * noted the media as accepted, until a worker has taken its job, until it is fetched and stored and its row written, until
 * this bench sees the row. The first two are exact. The others lie between instants in whole milliseconds of one clock, that
 * of this machine: one of them may be a millisecond off either way, their means are not.
 */

import { oneOf, positiveWholeNumber } from '../../../src/operate/option-parsers.ts';
import { benchOptions, listOf } from '../bench-options.ts';
import { markdownTable, whole } from '../markdown-table.ts';
import { quantile } from '../quantile.ts';
import { type Cost, measureCost } from './cost.ts';
import { type Latency, measureLatency, type Spans } from './latency.ts';
import { openSurroundings } from './rig.ts';
import { measureThroughput, type Run, type Setting } from './throughput.ts';

const SECTIONS = ['backlog', 'apps', 'processes', 'cost', 'latency'];
const { values, read } = benchOptions('bench:scale', {
  backlog: { type: 'string', default: '1000,100000,1000000' },
  apps: { type: 'string', default: '1,10,1000' },
  processes: { type: 'string', default: '1,2,4' },
  jobs: { type: 'string', default: '16000' },
  samples: { type: 'string', default: '200' },
  only: { type: 'string', default: SECTIONS.join(',') },
  json: { type: 'boolean' },
});
const backlogs = read('backlog', listOf(positiveWholeNumber));
const fleets = read('apps', listOf(positiveWholeNumber));
const processCounts = read('processes', listOf(positiveWholeNumber));
const jobs = read('jobs', positiveWholeNumber);
const samples = read('samples', positiveWholeNumber);
const only = read('only', listOf(oneOf(SECTIONS)));
const table = (head: readonly string[]) => markdownTable(head, values.json);
const note = (text: string): void => void process.stderr.write(`${text}\n`);

await using surroundings = await openSurroundings(note);
const measure = (setting: Setting): Promise<Run> => measureThroughput(surroundings, setting, jobs);

if (only.includes('backlog')) {
  const row = table([
    'jobs waiting',
    'archived a second',
    'CPU of the worker, a job',
    'CPU of Redis, a job',
    'memory of Redis, a job',
  ]);
  for (const backlog of backlogs) {
    const run = await measure({ backlog, apps: 1, processes: 1 });
    row({ measure: 'backlog', ...run }, [whole(backlog), ...cellsOf(run), `${whole(run.redisBytesPerJob)} B`]);
  }
}
if (only.includes('apps')) {
  const row = table(['apps', 'archived a second', 'CPU of the worker, a job', 'CPU of Redis, a job']);
  for (const apps of fleets) {
    const run = await measure({ backlog: jobs, apps, processes: 1 });
    row({ measure: 'apps', ...run }, [whole(apps), ...cellsOf(run)]);
  }
}
if (only.includes('processes')) {
  const row = table(['worker processes', 'archived a second', 'CPU of the workers, a job', 'CPU of Redis, a job']);
  for (const processes of processCounts) {
    const run = await measure({ backlog: 2 * jobs, apps: 1, processes });
    row({ measure: 'processes', ...run }, [whole(processes), ...cellsOf(run)]);
  }
}
if (only.includes('cost')) printCost(await measureCost(surroundings, Math.ceil(jobs / 8)));
if (only.includes('latency')) printLatency(await measureLatency(surroundings, samples));

function printCost({ commands, scripted, ...others }: Cost): void {
  const row = table(['of one media, 64 at a time', '']);
  const say = (what: string, count: number, digits: number): void =>
    row({ measure: 'cost', what, count }, [what, count.toFixed(digits)]);
  const sent = [...commands].sort(([, one], [, other]) => other - one);
  say(
    'commands to Redis',
    sent.reduce((sum, [, count]) => sum + count, 0),
    2,
  );
  for (const [name, count] of sent.filter(([, count]) => count >= 0.005)) say(`of these \`${name}\``, count, 2);
  say('commands that their scripts call', scripted, 1);
  say('reads by Redis, about one for each write of the worker', others.reads, 2);
  say('bytes to Redis', others.receivedBytes, 0);
  say('bytes from Redis', others.sentBytes, 0);
  say('bytes of the append-only file', others.appendedBytes, 0);
  say('bytes of the entry in the outbox', others.entryBytes, 0);
  say('lines of the log', others.logLines, 2);
  say('bytes of the log', others.logBytes, 0);
}

function printLatency({ measured, dropped }: Latency): void {
  const row = table(['a picture of 200 KiB, nothing else to do', 'mean', 'p50', 'p95', 'p99']);
  const labels: Readonly<Record<keyof Spans, string>> = {
    whole: 'from the push to its row for the catalog',
    answered: 'from the push until it is answered `success`',
    accepted: 'of the whole: until it is accepted',
    taken: 'until a worker has taken it',
    stored: 'until it is fetched and stored, and its row written',
    seen: 'until this bench sees the row',
  };
  for (const [span, label] of Object.entries(labels)) {
    const all = measured.map((spans) => spans[span as keyof Spans]).sort((one, other) => one - other);
    const mean = all.reduce((sum, ms) => sum + ms, 0) / all.length;
    const [p50, p95, p99] = [quantile(all, 0.5), quantile(all, 0.95), quantile(all, 0.99)];
    // No finer than it was stamped.
    const digits = span === 'whole' || span === 'answered' ? 1 : 0;
    row({ measure: 'latency', span, mean, p50, p95, p99, dropped }, [
      label,
      `${mean.toFixed(1)} ms`,
      ...[p50, p95, p99].map((ms) => `${ms.toFixed(digits)} ms`),
    ]);
  }
  if (dropped > 0) note(`left out: ${dropped} of which not every stamp was seen`);
}

function cellsOf({ archivedPerSecond, workerCpuMsPerJob, redisCpuMsPerJob }: Run): string[] {
  return [whole(archivedPerSecond), `${workerCpuMsPerJob.toFixed(2)} ms`, `${redisCpuMsPerJob.toFixed(2)} ms`];
}
