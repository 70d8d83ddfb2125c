#!/usr/bin/env node
import { userInfo } from 'node:os';
import { Command, CommanderError, Option } from 'commander';
import {
  type Config,
  ConfigError,
  type ConfigNeed,
  type ConfigWithStore,
  loadConfig,
  processEnvironment,
} from '../config.ts';
import type { DeadLetterFilter } from '../dead-letter/dead-letter-index.ts';
import { FAILURES, FailureError } from '../failure.ts';
import { redisTrouble } from '../redis/redis-trouble.ts';
import { DAY, SECOND } from '../time.ts';
import { VERSION } from '../version.ts';
import type { RebuildOptions } from './catalog-rebuild.ts';
import { CommandError, EXIT } from './command-error.ts';
import type { EraseOptions } from './erase.ts';
import type { ExportOptions } from './export.ts';
import type { GapsOptions } from './gaps.ts';
import {
  byteRate,
  instant,
  letterAppId,
  oneOf,
  ownAppId,
  positiveNumber,
  positiveWholeNumber,
  wholeDay,
  wholeNumber,
} from './option-parsers.ts';
import { createOutput, type Output } from './output.ts';
import type { QueryOptions } from './query.ts';
import type { VerifyOptions } from './verify.ts';

/** One media_id in 64 begins with a dash. */
const DASH_HINT = 'A media_id that begins with a dash goes behind --, after all options.';

/** Runs `weixin-media`. Each command's own code is loaded when it is called. */
async function main(argv: readonly string[]): Promise<number> {
  let exitCode: number = EXIT.done;
  const output = createOutput(argv.includes('--json'), process);
  const program = new Command('weixin-media')
    .description('Moves WeChat media into S3-compatible storage before WeChat deletes it.')
    .version(VERSION)
    .option('--json', 'results as one JSON object a line')
    .addHelpText('after', '\nExit codes: 0 done, 1 failed, 2 wrong usage or configuration.')
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .hook('preAction', (_, chosen) => checkDays(chosen.opts()));

  /** Registers what a command does; `--json` is accepted behind every command. */
  const command = (parent: Command, name: string, about: string): Command =>
    parent
      .command(name)
      .description(about)
      .addOption(new Option('--json', 'results as one JSON object a line').hideHelp());
  const run = (work: Promise<number>): Promise<void> =>
    work.then((code) => {
      exitCode = code;
    });

  command(program, 'demo', 'Runs the whole line on this machine, everything embedded, and says what it did.')
    .option('--keep', 'leave the archive folder and Redis data for a look')
    .action(({ keep = false }: { keep?: boolean }) =>
      run(import('../demo/demo.ts').then(({ demo }) => demo({ keep }, output))),
    );

  command(program, 'worker', 'Archives media until it is stopped (SIGTERM).').action(() =>
    run(import('./worker.ts').then(({ worker }) => worker(configOf('store', 'accounts')))),
  );

  command(
    program,
    'ingest',
    'Serves HTTP until it is stopped (SIGTERM): media are handed in, looked up and replayed.',
  ).action(() => run(import('./ingest.ts').then(({ ingest }) => ingest(configOf('accounts', 'guard')))));

  const catalogCommand = command(
    program,
    'catalog',
    'Writes the catalog of the archive until it is stopped (SIGTERM).',
  );
  catalogCommand.action(() => run(import('./catalog.ts').then(({ catalog }) => catalog(configOf('store')))));

  command(catalogCommand, 'rebuild', 'Makes the rows of media, derived files and dead letters anew from the bucket.')
    .option('--since <time>', 'of days from this one on: ISO-8601, or 24h, 7d ago', instant)
    .option('--until <time>', 'of days up to this one', instant)
    .option('--app <appId>', 'of this account', ownAppId)
    .option('--dry-run', 'say what differs, and change nothing')
    .option('--no-lease', 'while Redis is away: only where no catalog process runs')
    .action((options: RebuildOptions) =>
      run(
        import('./catalog-rebuild.ts').then(({ rebuildCatalog }) => rebuildCatalog(configOf('store'), options, output)),
      ),
    );

  command(program, 'derive', 'Optional: makes MP3 of voices and thumbnails, until it is stopped (SIGTERM).')
    .option('--since <time>', 'of media of days from this one on; by itself of those of the last days', instant)
    .action((options: { since?: number }) =>
      run(import('./derive.ts').then(({ derive }) => derive(configOf('store'), options))),
    );

  command(program, 'enqueue', 'Queues media to be archived.')
    .argument('[appId]', 'the account')
    .argument('[mediaId...]', 'its media')
    .option('--kind <kind>', 'image, voice, video, thumb or file')
    .option('--received-at <time>', 'when WeChat created the message, ISO-8601 UTC (default: now)')
    .option('--file <path>', 'a file with one MediaJob a line; - is standard input')
    .showHelpAfterError(DASH_HINT)
    .action(
      (appId: string | undefined, mediaIds: string[], options: { kind?: string; receivedAt?: string; file?: string }) =>
        run(
          import('./enqueue.ts').then(({ enqueue }) => enqueue(configOf('accounts'), appId, mediaIds, options, output)),
        ),
    );

  command(program, 'status', 'What waits, what is late, which gates are closed, what the fleet does.').action(() =>
    run(import('./status.ts').then(({ status }) => status(configOf(), output))),
  );

  command(program, 'show', 'Where a media is, and what has happened to it.')
    .argument('<appId>')
    .argument('<mediaId>')
    .showHelpAfterError(DASH_HINT)
    .action((appId: string, mediaId: string) =>
      run(import('./show.ts').then(({ show }) => show(configOf(), appId, mediaId, output))),
    );

  command(program, 'doctor', 'Looks at Redis, the store and the accounts, and says what to do.').action(() =>
    run(import('./doctor.ts').then(({ doctor }) => doctor(configOf(), output))),
  );

  command(program, 'erase', 'Removes a person, or media, from archive and queue.')
    .requiredOption('--app <appId>', 'of this account')
    .option('--open-id <openId>', 'everything of this person; - reads it from standard input')
    .option('--media-id <mediaId...>', 'these media')
    .option('--file <path>', 'a file with one media_id a line; - is standard input')
    .option('--dry-run', 'say what would go, and do nothing')
    .option('--by <who>', 'who does it, for the certificate (default: the user)')
    .option('--note <why>', 'why, for the certificate: nothing that names the person')
    .option('--continue <id>', 'go on with the erasure of this certificate')
    .addOption(
      new Option('--wait <seconds>', 'how long to wait for media that are being archived just now')
        .argParser(positiveNumber)
        .default(120),
    )
    .action((options: EraseFlags) =>
      run(import('./erase.ts').then(({ erase }) => erase(configOf('store'), eraseOptionsOf(options), output))),
    );

  command(program, 'verify', 'Compares objects, rows and manifests, and reads objects back.')
    .option('--all', 'reads every object')
    .option('--sample <n>', 'reads so many, drawn anew each time (default: 100)', positiveWholeNumber)
    .option('--since <time>', 'of days from this one on: ISO-8601, or 24h, 7d ago; reads every object', instant)
    .option('--until <time>', 'of days up to this one', instant)
    .option('--app <appId>', 'of this account', ownAppId)
    .option('--restart', 'from the beginning, where the same command was broken off')
    .option('--rate <size>', 'bytes a second at most: 20MiB', byteRate)
    .option('--concurrency <n>', 'objects read at once (default: 8)', positiveWholeNumber)
    .action((options: VerifyOptions) =>
      run(import('./verify.ts').then(({ verifyArchive }) => verifyArchive(configOf('store'), options, output))),
    );

  command(program, 'gaps', 'What was accepted and what became of it; names what is missing.')
    .option('--since <time>', 'of days from this one on: ISO-8601, or 24h, 7d ago (default: 7d)', instant)
    .option('--until <time>', 'of days up to this one', instant)
    .option('--app <appId>', 'of this account', ownAppId)
    .option('--jobs', 'only the missing that WeChat still has, as lines for `enqueue --file -`')
    .action((options: GapsOptions) =>
      run(import('./gaps.ts').then(({ gaps }) => gaps(configOf('store'), options, output))),
    );

  command(program, 'export', 'Writes a day, or an app, to a folder as a BagIt bag.')
    .requiredOption('--bagit <folder>', 'the folder of the bag')
    .option('--dt <day>', 'this day: YYYY-MM-DD', wholeDay)
    .option('--app <appId>', 'of this account', ownAppId)
    .option('--since <time>', 'of days from this one on: ISO-8601, or 24h, 7d ago', instant)
    .option('--until <time>', 'of days up to this one', instant)
    .action((options: ExportOptions) =>
      run(import('./export.ts').then(({ exportMedia }) => exportMedia(configOf('store'), options, output))),
    );

  command(program, 'query', 'Runs SQL over the catalog: media, dead_letters, accepted, derived.')
    .argument('<sql>', 'one SELECT, in the SQL of DuckDB')
    .option('--copy <folder>', 'keep the files that are fetched there, and fetch only what is new the next time')
    .option('--local <folder>', 'over a copy of the bucket in this folder, as `aws s3 sync` makes it')
    .option('--since <time>', 'only days from this one on: ISO-8601, or 24h, 7d ago', instant)
    .option('--until <time>', 'only days up to this one', instant)
    .option('--app <appId>', 'only this account', letterAppId)
    .action((sql: string, options: QueryOptions) =>
      run(import('./query.ts').then(({ queryCatalog }) => queryCatalog(configOf(), sql, options, output))),
    );

  const deadLetters = program.command('dead-letters').description('What could not be saved.');

  filtered(command(deadLetters, 'list', 'Lists the open ones.')).action((options: FilterOptions) =>
    run(
      import('./dead-letters.ts').then(({ listDeadLetters }) => listDeadLetters(configOf(), filterOf(options), output)),
    ),
  );

  command(deadLetters, 'show', 'Shows one, whole.')
    .argument('<appId>')
    .argument('<mediaId>')
    .showHelpAfterError(DASH_HINT)
    .action((appId: string, mediaId: string) =>
      run(
        import('./dead-letters.ts').then(({ showDeadLetter }) =>
          showDeadLetter(configOf('store'), appId, mediaId, output),
        ),
      ),
    );

  recorded(filtered(command(deadLetters, 'replay', 'Puts them back to work.')))
    .option('--rate <n>', 'letters a second', positiveNumber)
    .option('--include-expired', 'media past their deadline too')
    .action((options: FilterOptions & MassFlags & { rate?: number; includeExpired?: boolean }) => {
      const { rate, includeExpired = false } = options;
      const wanted = { ...massOf(options), includeExpired, ...(rate === undefined ? {} : { rate }) };
      return run(
        import('./dead-letters.ts').then(({ replayDeadLetters }) =>
          replayDeadLetters(configOf('store'), wanted, output),
        ),
      );
    });

  recorded(filtered(command(deadLetters, 'discard', 'Notes that nothing more is to be done about them.'))).action(
    (options: FilterOptions & MassFlags) =>
      run(
        import('./dead-letters.ts').then(({ discardDeadLetters }) =>
          discardDeadLetters(configOf('store'), massOf(options), output),
        ),
      ),
  );

  command(deadLetters, 'rebuild', 'Makes the list in Redis anew from the bucket.').action(() =>
    run(import('./dead-letters.ts').then(({ rebuildDeadLetters }) => rebuildDeadLetters(configOf('store'), output))),
  );

  try {
    await program.parseAsync([...argv]);
    return exitCode;
  } catch (error) {
    return explain(error, output);
  }
}

function configOf(): Config;
function configOf(need: 'store', ...more: ConfigNeed[]): ConfigWithStore;
function configOf(...needs: ConfigNeed[]): Config;
function configOf(...needs: ConfigNeed[]): Config {
  return loadConfig(processEnvironment(), needs);
}

interface FilterOptions {
  readonly app?: string;
  readonly reason?: string;
  readonly errcode?: number;
  readonly since?: number;
  readonly until?: number;
  readonly limit?: number;
}

interface MassFlags {
  readonly all?: boolean;
  readonly dryRun?: boolean;
  readonly by?: string;
  readonly note?: string;
}

interface EraseFlags extends MassFlags {
  readonly app: string;
  readonly openId?: string;
  readonly mediaId?: string[];
  readonly file?: string;
  readonly continue?: string;
  readonly wait: number;
}

function eraseOptionsOf(flags: EraseFlags): EraseOptions {
  const { app, openId, mediaId, file, dryRun = false, by = userInfo().username, note = '', wait } = flags;
  return {
    app,
    ...(openId === undefined ? {} : { openId }),
    ...(mediaId === undefined ? {} : { mediaIds: mediaId }),
    ...(file === undefined ? {} : { file }),
    ...(flags.continue === undefined ? {} : { continueId: flags.continue }),
    dryRun,
    by,
    note,
    waitMs: wait * SECOND,
  };
}

function filtered(command: Command): Command {
  const reasons = Object.entries(FAILURES).flatMap(([code, { action }]) => (action === 'dead' ? code : []));
  return command
    .option('--app <appId>', 'of this account', letterAppId)
    .addOption(new Option('--reason <reason>', 'given up for this reason').argParser(oneOf(reasons)))
    .option('--errcode <n>', "with this errcode of WeChat's", wholeNumber)
    .option('--since <time>', 'died at or after: ISO-8601, or 90min, 24h, 7d ago', instant)
    .option('--until <time>', 'died at or before', instant)
    .option('--limit <n>', 'at most so many', positiveWholeNumber);
}

function recorded(command: Command): Command {
  return command
    .option('--all', 'every open dead letter')
    .option('--dry-run', 'say what would be done, and do nothing')
    .option('--by <who>', 'who does it, for the record (default: the user)')
    .option('--note <why>', 'why, for the record');
}

function filterOf({ app, reason, errcode, since, until, limit }: FilterOptions): DeadLetterFilter {
  return {
    ...(app === undefined ? {} : { appId: app }),
    ...(reason === undefined ? {} : { reason }),
    ...(errcode === undefined ? {} : { errcode }),
    ...(since === undefined ? {} : { since }),
    ...(until === undefined ? {} : { until }),
    ...(limit === undefined ? {} : { limit }),
  };
}

function massOf(options: FilterOptions & MassFlags): {
  filter: DeadLetterFilter;
  all: boolean;
  dryRun: boolean;
  by: string;
  note: string;
} {
  const { all = false, dryRun = false, by = userInfo().username, note = '' } = options;
  return { filter: filterOf(options), all, dryRun, by, note };
}

/** Nothing lies between them: an answer would say that nothing is wrong there. Two instants of one day are its whole. */
function checkDays({ since, until }: { readonly since?: number; readonly until?: number }): void {
  if (since !== undefined && until !== undefined && Math.floor(since / DAY) > Math.floor(until / DAY))
    throw new CommandError('--since is after --until', EXIT.usage);
}

/** Says what went wrong, and with which exit code. */
function explain(error: unknown, output: Output): number {
  // Help and version come this way too; commander has written its own text by then.
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.done : EXIT.usage;
  if (error instanceof ConfigError) {
    output.note(error.message);
    return EXIT.usage;
  }
  if (error instanceof CommandError) {
    output.note(error.message);
    return error.exitCode;
  }
  if (error instanceof FailureError) {
    const { code, detail } = error.failure;
    output.note(`${code}${detail === undefined ? '' : ` (${detail})`}: ${FAILURES[code].hint}`);
    return EXIT.failed;
  }
  // Of a class whose file would load DuckDB for every command.
  if (error instanceof Error && error.name === 'DuckError') {
    output.note(
      `${error.message}\nIs a file of the catalog spoilt? verify names it, and catalog rebuild makes it anew.`,
    );
    return EXIT.failed;
  }
  const trouble = redisTrouble(error);
  if (trouble !== undefined) {
    output.note(trouble);
    return EXIT.failed;
  }
  if (error instanceof DOMException && error.name === 'TimeoutError') {
    output.note(`store-unreachable (no answer in time): ${FAILURES['store-unreachable'].hint}`);
    return EXIT.failed;
  }
  output.note(error instanceof Error ? `unexpected: ${error.stack ?? error.message}` : `unexpected: ${String(error)}`);
  return EXIT.failed;
}

// Whoever reads our results may stop early, as `head` does: nobody is left to work for.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(EXIT.failed);
});
process.exitCode = await main(process.argv);
