/**
 * Measures what a worker needs of memory, by Linux's own account of its process.
 *
 *   npm run bench:memory -- [--images N] [--videos N] [--flood N] [--json]
 *
 * The worker is a real process; so are Redis, the WeChat simulator and an S3 server, each with its memory to itself.
 * Prints two Markdown tables: the most a worker has needed for media in flight, and what a flood of jobs does to it.
 */
import { parseArgs } from 'node:util';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { runFlood } from './flood.ts';
import { openRig, type Rig } from './rig.ts';
import { runScenario } from './run.ts';
import { FULL, type Scenario, scenarios } from './scenarios.ts';

const { values } = parseArgs({
  options: {
    images: { type: 'string', default: String(FULL.images) },
    videos: { type: 'string', default: String(FULL.videos) },
    flood: { type: 'string', default: '100000' },
    json: { type: 'boolean', default: false },
  },
});

await using rig = await openRig(console.error);

const library = new Map<string, readonly MediaJob[]>();
if (!values.json) {
  console.log(
    '| what | budget | of it in use | at once | archived | seconds | idle | peak | peak without the budget in use |',
  );
  console.log('|---|--:|--:|--:|--:|--:|--:|--:|--:|');
}
for (const scenario of scenarios({ images: Number(values.images), videos: Number(values.videos) })) {
  const row = await runScenario(rig, scenario, await mediaOf(rig, scenario));
  if (values.json) {
    console.log(JSON.stringify(row));
    continue;
  }
  const { budgetBytes, usedBytes, idleBytes, peakBytes } = row;
  const cells = [
    row.scenario,
    mebibytes(budgetBytes),
    mebibytes(usedBytes),
    row.inFlight,
    row.archived,
    row.seconds.toFixed(1),
    mebibytes(idleBytes),
    mebibytes(peakBytes),
    mebibytes(peakBytes - usedBytes),
  ];
  console.log(`| ${cells.join(' | ')} |`);
}

const flood = Number(values.flood);
if (!values.json) {
  console.log('\n| jobs | handed in a second | Redis, a job | waiting | archived | idle | after | peak |');
  console.log('|--:|--:|--:|--:|--:|--:|--:|--:|');
}
for (const count of [Math.ceil(flood / 100), flood].filter((jobs) => jobs > 0)) {
  const row = await runFlood(rig, count);
  if (values.json) {
    console.log(JSON.stringify(row));
    continue;
  }
  const cells = [
    row.jobs.toLocaleString('en'),
    Math.round(row.jobsPerSecond).toLocaleString('en'),
    `${Math.round(row.redisBytesPerJob)} B`,
    row.waiting.toLocaleString('en'),
    row.archived.toLocaleString('en'),
    mebibytes(row.idleBytes),
    mebibytes(row.afterBytes),
    mebibytes(row.peakBytes),
  ];
  console.log(`| ${cells.join(' | ')} |`);
}

/** The media of a scenario, made once for all that have the same. */
async function mediaOf({ origin }: Rig, { media: { count, ...media } }: Scenario): Promise<readonly MediaJob[]> {
  const name = JSON.stringify([count, media]);
  const known = library.get(name);
  if (known !== undefined) return known;
  const { jobs } = await origin.ask({ type: 'add', count, media });
  library.set(name, jobs);
  return jobs;
}

function mebibytes(bytes: number): string {
  return `${Math.round(bytes / 2 ** 20)} MiB`;
}
