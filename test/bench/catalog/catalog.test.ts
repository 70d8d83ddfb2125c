import { expect, test } from 'vitest';
import { listingMemory } from './listing.ts';
import { runBench } from './run.ts';

const MIB = 1024 * 1024;

test('the bench runs: what is flushed and merged is what was added', async () => {
  const report = await runBench({
    rows: 3_000,
    apps: 3,
    days: 2,
    env: { CATALOG_FLUSH_ROWS: '500' },
    note: () => undefined,
  });
  expect(report).toMatchObject({ rowsFound: 3_000, closing: { files: 6 } });
  expect(report.flush.files).toBeGreaterThan(6);
  expect(report.queries).toHaveLength(6);
  expect(Math.max(report.flush.peakBytes, report.closing.peakBytes)).toBeLessThan(512 * MIB);
}, 60_000);

test('listing a bucket takes no more memory for many objects than for some', async () => {
  const some = await listingMemory(40_000, () => undefined);
  const many = await listingMemory(200_000, () => undefined);
  // As pages, 160,000 objects would be above 100 MiB more.
  expect(many.peakBytes - some.peakBytes).toBeLessThan(80 * MIB);
}, 120_000);
