import { expect, test } from 'vitest';
import { pauseBeforeNext } from '../../src/operate/worker-processes.ts';
import { MINUTE, SECOND } from '../../src/time.ts';

test('the pause grows up to a minute while a worker dies soon after its start', () => {
  const pauses = [0];
  for (let deaths = 0; deaths < 8; deaths += 1) pauses.push(pauseBeforeNext(pauses.at(-1) ?? 0, deaths * SECOND));
  expect(pauses.slice(1).map((ms) => ms / SECOND)).toEqual([1, 2, 4, 8, 16, 32, 60, 60]);
});

test('the pause is short again once a worker has run for more than a minute', () => {
  expect(pauseBeforeNext(32 * SECOND, MINUTE)).toBe(MINUTE);
  expect(pauseBeforeNext(32 * SECOND, MINUTE + 1)).toBe(SECOND);
});
