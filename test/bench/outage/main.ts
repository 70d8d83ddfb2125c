/**
 * Runs the worker's own policy code, and those of others, through days of simulated outages.
 *
 *   npm run bench:outage -- [--seed N] [--media N] [--slots N] [--json]
 *
 * Prints a Markdown table: the share of media that each policy saves, how many it loses although they could have been
 * saved, and how many calls it makes.
 */
import { positiveWholeNumber, wholeNumber } from '../../../src/operate/option-parsers.ts';
import { benchOptions } from '../bench-options.ts';
import { runAll } from './run.ts';
import { FULL } from './scenarios.ts';

const { values, read } = benchOptions('bench:outage', {
  seed: { type: 'string', default: '1' },
  media: { type: 'string', default: String(FULL.media) },
  slots: { type: 'string', default: String(FULL.slots) },
  json: { type: 'boolean' },
});
const seed = read('seed', wholeNumber);
const sizes = { ...FULL, media: read('media', positiveWholeNumber), slots: read('slots', positiveWholeNumber) };

if (!values.json) {
  console.log('| scenario | media | policy | saved | lost although savable | calls |');
  console.log('|---|--:|---|--:|--:|--:|');
}
let scenario = '';
for (const row of runAll(sizes, seed)) {
  if (values.json) {
    console.log(JSON.stringify(row));
    continue;
  }
  const first = row.scenario !== scenario;
  scenario = row.scenario;
  const head = first ? `${row.scenario} | ${row.media.toLocaleString('en')}` : '|';
  const share = `${((100 * row.saved) / row.media).toFixed(2)} %`;
  const numbers = [row.lostButSavable, row.calls].map((number) => number.toLocaleString('en'));
  console.log(`| ${head} | ${row.policy} | ${share} | ${numbers.join(' | ')} |`);
}
