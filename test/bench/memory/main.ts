/**
 * Measures what a worker needs of memory, by Linux's own account of its process.
 *
 *   npm run bench:memory -- [--images N] [--videos N] [--flood N] [--node-options TEXT] [--json]
 *   npm run bench:memory -- --grid [--concurrency 1,16,64,256] [--sizes 64KiB,1MiB,10MiB,50MiB] [--budget 256MiB]
 *                           [--node-options TEXT] [--json]
 *
 * The worker is a real process; so are Redis, the WeChat simulator and an S3 server, each with its memory to itself.
 * Prints two Markdown tables: the most a worker has needed for media in flight, and what a flood of jobs does to it,
 * beside a queue that is kept short until the worker has done as much. `--node-options` are the worker's NODE_OPTIONS.
 *
 * `--grid`, which is off by default, prints another table in place of both: the peak for each concurrency and each size of
 * the media, a fresh worker for each. All slots have a media at once; a cell where they were not seen to says how many had.
 * A cell ends when 4 budgets full of media are archived, or 1,024 media where those are fewer bytes: not when all are that
 * its slots have begun.
 */
import { VARIABLES } from '../../../src/config-variables.ts';
import type { MediaJob } from '../../../src/media/media-job.ts';
import type { Environment } from '../../support/stack.ts';
import { benchOptions, count, listOf, size, variable } from '../bench-options.ts';
import { type FloodRow, runFlood } from './flood.ts';
import { scenarioOf } from './grid.ts';
import { openRig, type Rig } from './rig.ts';
import { runScenario } from './run.ts';
import { FULL, type Scenario, scenarios } from './scenarios.ts';

const { values, read } = benchOptions('bench:memory', {
  images: { type: 'string', default: String(FULL.images) },
  videos: { type: 'string', default: String(FULL.videos) },
  flood: { type: 'string', default: '100000' },
  grid: { type: 'boolean' },
  concurrency: { type: 'string', default: '1,16,64,256' },
  sizes: { type: 'string', default: '64KiB,1MiB,10MiB,50MiB' },
  budget: { type: 'string', default: '256MiB' },
  'node-options': { type: 'string', default: '' },
  json: { type: 'boolean' },
});
const images = read('images', count);
const videos = read('videos', count);
const flood = read('flood', count);
const concurrencies = read('concurrency', listOf(variable(VARIABLES.WORKER_CONCURRENCY)));
const sizes = read('sizes', listOf(size));
const budgetBytes = read('budget', variable(VARIABLES.WORKER_MEMORY_BUDGET));

/** Of a queue that is kept short. */
const SHORT = 1_000;
/** A worker's memory has settled by then. */
const SETTLED_AFTER = 10_000;

const env: Environment = values['node-options'] === '' ? {} : { NODE_OPTIONS: values['node-options'] };
await using rig = await openRig(console.error);

const library = new Map<string, readonly MediaJob[]>();
if (values.grid) await measureGrid();
else {
  await measureScenarios();
  if (flood > 0) await measureFlood();
}

async function measureGrid(): Promise<void> {
  const spare = Math.max(...concurrencies);
  if (!values.json) {
    console.log(`| at once | ${values.sizes.replaceAll(',', ' | ')} |`);
    console.log(`|--:|${'--:|'.repeat(sizes.length)}`);
  }
  for (const concurrency of concurrencies) {
    const cells: string[] = [];
    for (const sizeBytes of sizes) {
      const scenario = scenarioOf({ concurrency, sizeBytes, budgetBytes }, spare);
      const row = await runScenario(rig, scenario, await mediaOf(rig, scenario), env);
      if (values.json) console.log(JSON.stringify(row));
      const { peakBytes, inFlight } = row;
      cells.push(mebibytes(peakBytes) + (inFlight < concurrency ? ` (${inFlight} at once)` : ''));
    }
    if (!values.json) console.log(`| ${[concurrency, ...cells].join(' | ')} |`);
  }
}

async function measureScenarios(): Promise<void> {
  if (!values.json) {
    console.log(
      '| what | budget | of it in use | at once | archived | seconds | idle | peak | peak without the budget in use |',
    );
    console.log('|---|--:|--:|--:|--:|--:|--:|--:|--:|');
  }
  for (const scenario of scenarios({ images, videos })) {
    const row = await runScenario(rig, scenario, await mediaOf(rig, scenario), env);
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
}

async function measureFlood(): Promise<void> {
  if (!values.json) {
    console.log('\n| jobs | handed in a second | Redis, a job | waiting | archived | idle | at the end | peak |');
    console.log('|--:|--:|--:|--:|--:|--:|--:|--:|');
  }
  const flooded = await runFlood(rig, flood, Math.min(flood, SETTLED_AFTER), env);
  printFlood(flooded);
  printFlood(await runFlood(rig, Math.min(flood, SHORT), flooded.archived, env));
}

function printFlood(row: FloodRow): void {
  const cells = [
    row.jobs.toLocaleString('en'),
    Math.round(row.jobsPerSecond).toLocaleString('en'),
    `${Math.round(row.redisBytesPerJob)} B`,
    row.waiting.toLocaleString('en'),
    row.archived.toLocaleString('en'),
    mebibytes(row.idleBytes),
    mebibytes(row.endBytes),
    mebibytes(row.peakBytes),
  ];
  console.log(values.json ? JSON.stringify(row) : `| ${cells.join(' | ')} |`);
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
