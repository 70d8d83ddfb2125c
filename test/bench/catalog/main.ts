/**
 * Measures the catalog: a real catalog process flushes an outbox, then closes the days, and its files are asked.
 *
 *   npm run bench:catalog -- [--rows N] [--apps N] [--days N] [--flush-rows N] [--memory SIZE] [--listing N] [--json]
 *
 * Says on stderr what it does, and prints Markdown tables. With --listing it lists a bucket of so many objects in place of
 * all that, as the closing of a day does.
 */
import { VARIABLES } from '../../../src/config-variables.ts';
import { positiveWholeNumber } from '../../../src/operate/option-parsers.ts';
import { benchOptions, count as countOf, variable } from '../bench-options.ts';
import { listingMemory } from './listing.ts';
import { type BenchReport, type Effort, runBench } from './run.ts';

const { values, read } = benchOptions('bench:catalog', {
  rows: { type: 'string', default: '1000000' },
  apps: { type: 'string', default: '1' },
  days: { type: 'string', default: '1' },
  'flush-rows': { type: 'string', default: '10000' },
  memory: { type: 'string', default: '128MiB' },
  listing: { type: 'string', default: '0' },
  json: { type: 'boolean' },
});
const rows = read('rows', positiveWholeNumber);
const apps = read('apps', positiveWholeNumber);
const days = read('days', positiveWholeNumber);
const flushRows = read('flush-rows', variable(VARIABLES.CATALOG_FLUSH_ROWS));
const memoryBytes = read('memory', variable(VARIABLES.CATALOG_MEMORY));
const listing = read('listing', countOf);

const startedAt = performance.now();
const note = (text: string): void => {
  process.stderr.write(`${((performance.now() - startedAt) / 1_000).toFixed(1).padStart(7)} s  ${text}\n`);
};

if (listing > 0) {
  const listed = await listingMemory(listing, note);
  if (values.json) console.log(JSON.stringify(listed));
  else
    console.log(
      `${count(listed.objects)} objects listed in ${listed.seconds.toFixed(1)} s, ${mebibytes(listed.peakBytes)} at most`,
    );
} else {
  const report = await runBench({
    rows,
    apps,
    days,
    env: { CATALOG_FLUSH_ROWS: String(flushRows), CATALOG_MEMORY: String(memoryBytes) },
    note,
  });
  if (values.json) console.log(JSON.stringify(report));
  else print(report);
}

function print(report: BenchReport): void {
  const { rows, apps, days, outboxBytesPerRow, parquetBytesPerRow } = report;
  console.log(`${count(rows)} rows, ${count(apps)} apps, ${count(days)} days`);
  console.log(`${outboxBytesPerRow} bytes a row in the outbox, ${parquetBytesPerRow} in Parquet\n`);
  console.log('| | seconds | CPU seconds | rows a second | peak | files | smallest | largest | requests |');
  console.log('|---|--:|--:|--:|--:|--:|--:|--:|--:|');
  printEffort('flush', report.flush);
  printEffort('closing', report.closing);
  console.log('\n| query | first | again |\n|---|--:|--:|');
  for (const { name, firstMs, againMs } of report.queries) console.log(`| ${name} | ${firstMs} ms | ${againMs} ms |`);
}

function printEffort(name: string, effort: Effort): void {
  const cells = [
    name,
    effort.seconds.toFixed(1),
    effort.cpuSeconds.toFixed(1),
    count(effort.rowsPerSecond),
    mebibytes(effort.peakBytes),
    count(effort.files),
    mebibytes(effort.smallestBytes),
    mebibytes(effort.largestBytes),
    count(effort.storeRequests),
  ];
  console.log(`| ${cells.join(' | ')} |`);
}

function count(number: number): string {
  return number.toLocaleString('en');
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(bytes < 2 ** 24 ? 2 : 0)} MiB`;
}
