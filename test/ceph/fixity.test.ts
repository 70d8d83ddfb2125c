import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, inject, test } from 'vitest';
import { DT, openSealedArchive } from '../support/sealed-archive.ts';
import { runCommand } from '../support/stack.ts';
import { openGatewayBackend } from '../support/store.ts';

/** More than a page of a listing in one folder, which the embedded server can't list. */
const COUNT = 2_300;

test('a day of several pages is sealed, verified and exported', async () => {
  await using archive = await openSealedArchive(await openGatewayBackend(inject('ceph')));
  const keys = await archive.add(COUNT);
  expect(await archive.close()).toMatchObject({ objects: COUNT, unlisted: 0, missing: 0 });
  expect(await archive.close()).toBeUndefined();
  const run = (...args: string[]) => runCommand([...args, '--json'], { env: archive.environment });
  const good = await run('verify', '--all', '--concurrency', '16');
  expect([good.stdout, good.code]).toEqual(['', 0]);
  const bag = join(archive.folder, 'bag');
  const exported = await run('export', '--bagit', bag, '--dt', DT);
  expect(exported.rows().at(-1)).toMatchObject({ objects: COUNT, problems: 0 });
  await rm(bag, { recursive: true });

  const [first = '', second = ''] = keys;
  await archive.overwrite(first, Buffer.alloc(40, 1));
  await archive.remove(second);
  const bad = await run('verify', '--sample', '1');
  expect(bad.rows().map(({ difference, key }) => [difference, key])).toEqual(
    expect.arrayContaining([
      ['sha256', first],
      ['missing', second],
    ]),
  );
  expect(bad.rows()).toHaveLength(2);
}, 120_000);
