import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { runCommand } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

test('the demo ends with 0 and every number as it must be', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'weixin-media-demo-'));
  await using parts = new AsyncDisposableStack();
  parts.defer(() => rm(folder, { recursive: true, force: true, maxRetries: 5 }));
  const { code, rows, stderr } = await runCommand(['demo', '--json'], { cwd: folder });

  expect(stderr).not.toContain('not as expected');
  expect(rows()).toEqual([
    {
      enqueued: 278,
      duplicates: 20,
      archived: 267,
      deadLettered: { 'invalid-media-id': 6, 'media-expired': 5 },
      retries: 12,
      tokenRefreshes: 3,
      bytes: expect.any(Number),
      verified: 267,
      seconds: expect.any(Number),
    },
  ]);
  expect(code).toBe(0);
  const left = await readdir(join(folder, '.demo', 'archive'), { recursive: true });
  expect(left.some((path) => path.includes('dead-letters'))).toBe(true);
});
