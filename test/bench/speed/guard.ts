/**
 * Tells whether we have become slower, whatever the machine: a short `npm run bench`, whose ratios are compared with those
 * that are kept beside this file.
 *
 *   npm run bench:guard -- [--quick] [--update] [--tolerance 0.15]
 *
 * Ends with 1 where a ratio has fallen by more than the tolerance. `--update` keeps what was measured; `--quick` takes half a
 * minute and looks at small media only.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { positiveNumber } from '../../../src/operate/option-parsers.ts';
import { benchOptions } from '../bench-options.ts';
import { type Cell, ratiosOf } from './results.ts';

const KEPT = new URL('ratios.json', import.meta.url);
const ONLY = ['--only', 'ours,floor,sdk-loop'];
const SUBSET = ['--size', '64KiB,1MiB', ...ONLY, '--rounds', '7', '--scale', '0.8'];
const QUICK = ['--size', '64KiB', ...ONLY, '--rounds', '3', '--scale', '0.5'];

const { values, read } = benchOptions('bench:guard', {
  quick: { type: 'boolean' },
  update: { type: 'boolean' },
  tolerance: { type: 'string', default: '0.15' },
});
const tolerance = read('tolerance', positiveNumber);

const out = await mkdtemp(join(tmpdir(), 'weixin-media-guard-'));
try {
  const bench = fileURLToPath(new URL('main.ts', import.meta.url));
  const child = spawn(process.execPath, [bench, ...(values.quick ? QUICK : SUBSET), '--out', out], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code] = (await once(child, 'exit')) as [number | null];
  if (code !== 0) throw new Error(`the bench ended with ${code}`);
  const { cells } = JSON.parse(await readFile(join(out, 'bench.json'), 'utf8')) as { cells: Cell[] };
  const measured = new Map(
    cells.flatMap((cell) => ratiosOf(cell).map(({ name, median }) => [`${cell.size}: ${name}`, median] as const)),
  );
  if (values.update) await keep(measured);
  else await compare(measured);
} finally {
  await rm(out, { recursive: true, force: true });
}

async function keep(measured: ReadonlyMap<string, number>): Promise<void> {
  const rounded = [...measured].map(([name, ratio]) => [name, Number(ratio.toFixed(3))]);
  await writeFile(KEPT, `${JSON.stringify(Object.fromEntries(rounded), null, 2)}\n`);
  console.log('\nkept');
}

async function compare(measured: ReadonlyMap<string, number>): Promise<void> {
  const kept = JSON.parse(await readFile(KEPT, 'utf8')) as Record<string, number>;
  console.log('\n| ratio | now | kept | |\n|---|--:|--:|---|');
  for (const [name, before] of Object.entries(kept)) {
    const now = measured.get(name);
    if (values.quick && now === undefined) continue;
    const hasFallen = now === undefined || now < before * (1 - tolerance);
    if (hasFallen) process.exitCode = 1;
    console.log(`| ${name} | ${now?.toFixed(2) ?? 'not measured'} | ${before} | ${hasFallen ? 'fallen' : 'fine'} |`);
  }
}
