import { createWriteStream } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { finished } from 'node:stream/promises';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';
import { lettersKey } from './catalog-keys.ts';
import { DEAD_LETTER_TABLE } from './dead-letter-table.ts';
import { fromNdjson, fromParquet } from './duck.ts';
import { type FlushParts, PARQUET_TYPE } from './flush.ts';
import { inParallel } from './in-parallel.ts';
import { letterRow } from './letter-row.ts';
import { columnsOf, copy } from './parquet.ts';
import { unwrap } from './unwrap.ts';

/** Letters read at once. */
const READS_AT_ONCE = 16;

/**
 * Compares the dead letters of a day with their rows, app by app, and writes those that differ anew from the letters.
 * Returns how many differed. Harmless to repeat. Memory does not grow with the number of letters.
 *
 * @throws FailureError
 */
export async function reconcileLetters(parts: FlushParts, dt: string, signal: AbortSignal): Promise<number> {
  let changed = 0;
  for await (const folder of parts.files.folders(DEAD_LETTER_PREFIX, signal)) {
    const [, app] = /\/app=([^/]+)\/$/.exec(folder) ?? [];
    if (app !== undefined) changed += await reconcileApp(parts, dt, app, signal);
  }
  return changed;
}

async function reconcileApp(
  { files, duck, folder }: FlushParts,
  dt: string,
  app: string,
  signal: AbortSignal,
): Promise<number> {
  const work = await mkdtemp(join(folder, 'letters-'));
  try {
    const [lines, before, path] = [join(work, 'now.ndjson'), join(work, 'before.parquet'), join(work, 'now.parquet')];
    const stream = createWriteStream(lines);
    let count = 0;
    await inParallel(
      READS_AT_ONCE,
      files.list(`${DEAD_LETTER_PREFIX}app=${app}/dt=${dt}/`, signal),
      async ({ key }) => {
        const row = await letterRow(files, key, signal);
        if (row === undefined) return;
        count += 1;
        stream.write(`${JSON.stringify(row)}\n`);
      },
    ).finally(() => stream.end());
    await finished(stream);
    if (count === 0) return 0;
    const columns = columnsOf(DEAD_LETTER_TABLE);
    const now = `SELECT ${columns} FROM ${fromNdjson(lines, DEAD_LETTER_TABLE.columns)}`;
    const isThere = unwrap(await files.getFile(lettersKey(dt, app), before, signal));
    const known = isThere ? `EXCEPT SELECT ${columns} FROM ${fromParquet([before])}` : '';
    const [answer] = await duck.rows(`SELECT count(*) AS n FROM (${now} ${known})`, signal);
    const changed = Number(answer?.['n']);
    if (changed === 0) return 0;
    await copy(duck, DEAD_LETTER_TABLE, now, path, signal);
    unwrap(await files.putFile(lettersKey(dt, app), path, PARQUET_TYPE, signal));
    return changed;
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}
