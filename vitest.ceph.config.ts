import { defineConfig } from 'vitest/config';

/** The store suite and a system test on a real Ceph object gateway, installed and started by the set-up. */
export default defineConfig({
  test: {
    include: ['test/ceph/**/*.test.ts'],
    globalSetup: ['test/global-setup.ts', 'test/ceph/global-setup.ts'],
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
