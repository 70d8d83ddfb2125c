import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { openWorkFolder, removeLeftFolders } from '../../src/operate/work-folder.ts';
import { HOUR, MINUTE } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { openStack } from '../support/stack.ts';

let parent: string;

beforeEach(async () => {
  parent = await mkdtemp(join(tmpdir(), 'weixin-media-parent-'));
});

afterEach(() => rm(parent, { recursive: true, force: true }));

async function age(path: string, ms: number): Promise<void> {
  const then = new Date(Date.now() - ms);
  await utimes(path, then, then);
}

test('the folder of a process that was killed goes after an hour, and nothing else', async () => {
  await using killed = await openWorkFolder(parent, 'catalog');
  await using young = await openWorkFolder(parent, 'catalog');
  for (const name of ['weixin-media-demo-kept', 'mine']) {
    await mkdir(join(parent, name));
    await age(join(parent, name), 9 * HOUR);
  }
  await age(killed.folder, HOUR + MINUTE);
  await age(young.folder, HOUR - MINUTE);
  expect(await removeLeftFolders(parent, Date.now())).toEqual([basename(killed.folder)]);
  expect((await readdir(parent)).toSorted()).toEqual(['mine', 'weixin-media-demo-kept', basename(young.folder)]);
});

test('a process that lives touches its folder, and makes it anew where it is gone', async () => {
  vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
  try {
    await using one = await openWorkFolder(parent, 'verify');
    await age(one.folder, 2 * HOUR);
    vi.advanceTimersByTime(MINUTE);
    await eventually(async () => ((await stat(one.folder)).mtimeMs > Date.now() - HOUR ? true : undefined));
    await rm(one.folder, { recursive: true, force: true });
    vi.advanceTimersByTime(MINUTE);
    await eventually(async () => ((await readdir(parent)).length === 1 ? true : undefined));
  } finally {
    vi.useRealTimers();
  }
  expect(await readdir(parent)).toEqual([]);
});

test('it goes while what was given up still writes to it', async () => {
  const { folder, ...one } = await openWorkFolder(parent, 'derive');
  let isOver = false;
  async function writing(): Promise<void> {
    for (let index = 0; !isOver && index < 400; index += 1) {
      const path = join(folder, `${index % 7}`);
      await mkdir(path).catch(() => undefined);
      await writeFile(join(path, `${index}`), 'x').catch(() => undefined);
    }
  }
  const writers = Promise.all(Array.from({ length: 8 }, writing));
  await expect(one[Symbol.asyncDispose]()).resolves.toBeUndefined();
  isOver = true;
  await writers;
  expect(await readdir(parent)).toEqual([]);
});

test('the catalog process removes what was left before it', async () => {
  await using stack = await openStack();
  const left = join(parent, 'weixin-media-work-catalog-killed');
  await mkdir(join(left, 'spill'), { recursive: true });
  await age(left, 2 * HOUR);
  const catalog = stack.catalog({ CATALOG_FOLDER: parent });
  await catalog.said('"msg":"catalog started"');
  const names = await readdir(parent);
  expect(names).toHaveLength(1);
  expect(names).not.toContain(basename(left));
  await catalog.stop();
  expect(await readdir(parent)).toEqual([]);
}, 60_000);
