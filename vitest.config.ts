import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/ceph/**'],
    globalSetup: ['test/global-setup.ts'],
    pool: 'forks',
    // Two cores: more would only make real processes wait for each other.
    maxWorkers: 2,
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
