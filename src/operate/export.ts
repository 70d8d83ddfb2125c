import { resolve } from 'node:path';
import { type BagSelection, exportBag, ForeignFolderError, readSelection } from '../catalog/bagit.ts';
import type { ConfigWithStore } from '../config.ts';
import { FailureError } from '../failure.ts';
import { stopOnSignals } from '../lifecycle.ts';
import { dayOf } from '../store/object-keys.ts';
import { iso } from '../time.ts';
import { openCatalogTools } from './catalog-tools.ts';
import { CommandError, EXIT } from './command-error.ts';
import { byteCount, type Output } from './output.ts';

export interface ExportOptions {
  /** The folder of the bag. */
  readonly bagit: string;
  /** Unix times in milliseconds: their UTC days count. */
  readonly dt?: number;
  readonly since?: number;
  readonly until?: number;
  readonly app?: string;
}

/** Earlier than any media. */
const FIRST_DAY = '2011-01-01';

/** Open days that are named. */
const MAX_TOLD = 10;

/**
 * `export --bagit`: a day, or an app, as a BagIt bag. Exit 1 when an object is not what the catalog says: then it is no valid
 * bag; and when there is nothing to export.
 */
export async function exportMedia(config: ConfigWithStore, options: ExportOptions, output: Output): Promise<number> {
  const { dt, since, until, app, bagit } = options;
  if (dt === undefined && app === undefined)
    throw new CommandError('export takes --dt, or --app with --since and --until', EXIT.usage);
  if (dt !== undefined && (since !== undefined || until !== undefined))
    throw new CommandError('--dt and --since or --until exclude each other', EXIT.usage);
  const day = (time: number | undefined): string | undefined => (time === undefined ? undefined : dayOf(iso(time)));
  const folder = resolve(bagit);
  const begun = await readSelection(folder);
  const selection: BagSelection = {
    bucket: config.store.bucket,
    since: day(dt ?? since) ?? begun?.since ?? FIRST_DAY,
    // Begun on another day, the same command goes on.
    until: day(dt ?? until) ?? begun?.until ?? day(Date.now()) ?? FIRST_DAY,
    ...(app === undefined ? {} : { app }),
  };
  const stop = stopOnSignals();
  await using tools = await openCatalogTools(config);
  using progress = output.progress('export', 0);
  if (begun !== undefined && until === undefined && dt === undefined)
    output.note(`goes on with a bag of days up to ${selection.until}`);
  try {
    const bag = await exportBag(
      {
        ...tools,
        now: Date.now,
        onTotal: (objects) => progress.total(objects),
        onObject: () => progress.advance(1),
        onProblem: (problem) => output.result(problem, () => `${problem.problem}  ${problem.key}`),
      },
      selection,
      folder,
      stop.signal,
    );
    progress.stop();
    const { objects, bytes, kept, problems, openDays } = bag;
    if (objects === 0) throw new CommandError(`the catalog has no media of ${described(selection)}: there is no bag`);
    if (openDays.length > 0)
      output.note(
        `not closed yet, and may get more media: ${openDays.slice(0, MAX_TOLD).join(', ')}${openDays.length > MAX_TOLD ? ', …' : ''}`,
      );
    output.result({ ...bag, folder }, () => {
      const end = problems === 0 ? 'a valid bag' : `${problems} objects are not as the catalog says: no valid bag`;
      return `${objects} objects, ${byteCount(bytes)}, ${kept} of them there already; ${folder}: ${end}`;
    });
    return problems === 0 ? EXIT.done : EXIT.failed;
  } catch (error) {
    if (stop.signal.aborted) throw new CommandError('stopped: the same command goes on from here');
    if (error instanceof ForeignFolderError) throw new CommandError(error.message, EXIT.usage);
    if (error instanceof Error && 'syscall' in error)
      throw new CommandError(`${folder} can't be written: ${error.message}`);
    if (error instanceof FailureError && error.failure.code === 'unclassified')
      throw new CommandError(`${folder} can't be written: ${error.failure.detail ?? 'unknown'}`);
    throw error;
  } finally {
    stop.release();
  }
}

function described({ since, until, app }: BagSelection): string {
  const days = since === until ? since : `${since} to ${until}`;
  return app === undefined ? days : `${app}, ${days}`;
}
