import { expect, test } from 'vitest';
import { readChain } from '../../src/catalog/manifest-chain.ts';
import { DAY, HOUR } from '../../src/time.ts';
import { filesOf } from '../support/catalog.ts';
import { eventually } from '../support/eventually.ts';
import { jobOf, keysBelow, openStack, untilIdle } from '../support/stack.ts';

const never = new AbortController().signal;
/** Days are over a little after they have ended. */
const SHORT = {
  MEDIA_TTL_HOURS: '1',
  CATALOG_CLOSE_AFTER_HOURS: '0',
  CATALOG_FLUSH_SECONDS: '0.05',
  WORKER_LOCK_SECONDS: '1',
};

test('closed days are sealed in one chain, whoever is killed when, and all is as it was archived', async () => {
  await using stack = await openStack();
  const media = [1, 2, 3].flatMap((days) => stack.addMedia(8, { ageMs: days * DAY - 6 * HOUR }));
  const worker = stack.worker();
  await stack.queue.door.admit(media.map(jobOf));
  await untilIdle(stack);
  await worker.stop();
  const files = filesOf(stack);
  const heads = async (): Promise<number> =>
    (await keysBelow(stack, 'manifests/')).filter((key) => key.endsWith('.json')).length;

  // One after the other, each killed once it has sealed a day more, or is about to.
  for (const turn of [1, 2]) {
    const catalog = stack.catalog(SHORT);
    await eventually(async () => ((await heads()) >= turn ? true : undefined));
    catalog.process.kill('SIGKILL');
    await catalog.exited;
  }
  const last = stack.catalog(SHORT);
  const verified = await eventually(async () => {
    const result = await stack.command(['verify', '--all', '--json'], { env: { CATALOG_FOLDER: stack.folder } });
    const [sealed] = /\d+(?= sealed in)/.exec(result.stderr) ?? [];
    return Number(sealed) >= 16 ? result : undefined;
  });
  await last.stop();
  expect(verified.rows()).toEqual([]);
  expect(verified.code).toBe(0);
  const { links, breaks } = await readChain(files, never);
  expect(breaks).toEqual([]);
  expect(links.map(({ head }) => head?.revision)).toEqual(links.map(() => 1));
  expect(links.map(({ dt }) => dt)).toEqual(links.map(({ dt }) => dt).toSorted());
  expect(links.every(({ head }) => head?.unlisted === 0 && head.missing === 0)).toBe(true);
}, 120_000);
