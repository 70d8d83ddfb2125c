import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const run = promisify(execFile);

const LINES = 5_000;
const program = `
  import { createLogger } from ${JSON.stringify(new URL('../src/log.ts', import.meta.url).href)};
  const log = createLogger('info', 'test');
  let line = 0;
  const timer = setInterval(() => {
    for (const end = line + 50; line < end; line += 1) log.info({ line, text: '长'.repeat(line % 200) }, 'a line');
    if (line === ${LINES}) clearInterval(timer);
  });`;

test('lines of several processes that share a pipe come out whole, however slowly it is read', async () => {
  const writer = '"$NODE" --input-type=module --eval "$PROGRAM" &';
  // Small reads: the pipe is full all the time, and room in it comes in crumbs.
  const { stdout } = await run('sh', ['-c', `(${writer} ${writer} ${writer} wait) 2>&1 | dd bs=500 status=none`], {
    env: { ...process.env, NODE: process.execPath, PROGRAM: program },
    maxBuffer: 64 * 1024 * 1024,
  });
  const lines = stdout.trimEnd().split('\n');
  expect(lines).toHaveLength(3 * LINES);
  for (const line of lines) expect(JSON.parse(line)).toMatchObject({ msg: 'a line' });
});
