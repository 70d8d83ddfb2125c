import { expect, test } from 'vitest';
import { steadyPace } from '../../src/operate/steady-pace.ts';

const never = new AbortController().signal;

test('lets no more through than so many a second', async () => {
  const pace = steadyPace(50);
  const startedAt = performance.now();
  for (let n = 0; n < 6; n += 1) await pace(never);
  // Timers may be a millisecond early.
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(5 * 20 - 5);
});

test('callers at the same time are let through one after another', async () => {
  const pace = steadyPace(50);
  const startedAt = performance.now();
  await Promise.all(Array.from({ length: 6 }, () => pace(never)));
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(5 * 20 - 5);
});

test('who is stopped need not wait', async () => {
  const pace = steadyPace(0.001);
  const stop = new AbortController();
  await pace(stop.signal);
  const waiting = pace(stop.signal);
  stop.abort();
  await waiting;
});
