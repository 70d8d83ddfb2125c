import { expect, test, vi } from 'vitest';
import { seededRandom } from '../queue/seeded-random.ts';
import { runChaos } from './chaos.ts';
import { DISTURBANCES } from './disturbances.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 300_000 });

test('whatever goes wrong, every accepted media is archived with equal bytes or a complete dead letter', async () => {
  const lines: string[] = [];
  const report = await runChaos({
    random: seededRandom(20_261_124),
    workers: 2,
    backlog: 120,
    note: (text) => lines.push(text),
  });
  expect(report.findings, lines.join('\n')).toEqual([]);
  expect(Object.keys(report.disturbances)).toHaveLength(DISTURBANCES.length);
  expect(report.archived).toBeGreaterThan(100);
  expect(Object.values(report.deadLettered).reduce((sum, of) => sum + of, 0)).toBeGreaterThan(0);
});
