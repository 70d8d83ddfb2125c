import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

test('is the one file that moves a taken job', () => {
  const folder = new URL('../../src/queue/', import.meta.url);
  const steps = /\blane\.(complete(?:AndTake)?|fail|delay|update)\(/;
  const files = readdirSync(folder).filter((name) => steps.test(readFileSync(new URL(name, folder), 'utf8')));
  expect(files).toEqual(['settle.ts']);
});
