import type { Config, ConfigWithStore } from '../config.ts';
import { type DeadLetterSummary, deadLetterSchema, invalidJobId, summaryOf } from '../dead-letter/dead-letter.ts';
import type { DeadLetterFilter } from '../dead-letter/dead-letter-index.ts';
import { FAILURES, FailureError } from '../failure.ts';
import { mediaJobId, parseMediaJob } from '../media/media-job.ts';
import { laneOf } from '../queue/lane.ts';
import type { Replayed, SkipReason } from '../queue/replay.ts';
import { DEAD_LETTER_PREFIX } from '../store/object-keys.ts';
import { matchesAll } from './chosen-letters.ts';
import { CommandError, EXIT } from './command-error.ts';
import { type Discarded, discardLetters } from './discard-letters.ts';
import { checkAppId, mediaNames, NO_APP, nameOf, variantOf, wrongMediaId } from './media-name.ts';
import { instant, letterText, titleOf } from './media-story.ts';
import { type OpenQueue, openQueue, openStore } from './open-queue.ts';
import { type Output, table } from './output.ts';
import { readLetters } from './read-letters.ts';
import { replayLetters } from './replay-letters.ts';

/** What `replay` and `discard` share: whom they concern, and who does it. */
export interface MassOptions {
  readonly filter: DeadLetterFilter;
  readonly all: boolean;
  readonly dryRun: boolean;
  readonly by: string;
  readonly note: string;
}

export interface ReplayCommandOptions extends MassOptions {
  /** Letters a second; absent: as fast as it goes. */
  readonly rate?: number;
  readonly includeExpired: boolean;
}

/** `dead-letters list`: the open ones, oldest death first. */
export async function listDeadLetters(config: Config, filter: DeadLetterFilter, output: Output): Promise<number> {
  await using queue = await openQueue(config);
  const rows: DeadLetterSummary[] = [];
  for await (const summary of queue.deadLetterIndex.list(filter)) {
    if (output.json) output.result({ ...summary, ...nameOf(summary) }, () => '');
    else rows.push(summary);
  }
  if (output.json) return EXIT.done;
  const withVariants = rows.some((summary) => variantOf(summary.jobId, summary) !== undefined);
  const more = (cell: string): string[] => (withVariants ? [cell] : []);
  // The media_id last: it is long, and a narrow terminal breaks the line there.
  const cells = rows.map((summary) => [
    instant(summary.diedAt),
    summary.appId,
    summary.reason,
    summary.errcode ?? '-',
    summary.attempts,
    ...more(variantOf(summary.jobId, summary) ?? ''),
    summary.mediaId,
  ]);
  output.result({}, () =>
    rows.length === 0
      ? 'no open dead letters'
      : table(['died at', 'app', 'reason', 'errcode', 'attempts', ...more('variant'), 'media'], cells),
  );
  return EXIT.done;
}

/** `dead-letters show <appId> <mediaId>`: the whole letter, of each variant. Exit 1 when there is none. */
export async function showDeadLetter(
  config: ConfigWithStore,
  appId: string,
  text: string,
  output: Output,
): Promise<number> {
  if (appId !== NO_APP) checkAppId(appId);
  await using queue = await openQueue(config);
  using opened = openStore(config.store, queue);
  const desk = { ...opened, deadLetterIndex: queue.deadLetterIndex };
  const read = await readLetters(desk, appId, text, AbortSignal.timeout(60_000));
  if (!read.ok) {
    const { code } = read.failure;
    throw new CommandError(`the letter can't be read: ${code} (${FAILURES[code].hint})`);
  }
  if (read.value.length === 0 && mediaNames(appId, text).length === 0 && appId !== NO_APP) throw wrongMediaId(text);
  if (read.value.length === 0) throw new CommandError(`there is no dead letter of ${appId} ${text}`);
  for (const [index, { key, letter }] of read.value.entries()) {
    output.result({ key, ...letter }, () => (index === 0 ? '' : '\n') + letterText(key, letter, Date.now()));
  }
  return EXIT.done;
}

/** `dead-letters replay`: puts letters back to work. Exit 1 when one could not be. */
export async function replayDeadLetters(
  config: ConfigWithStore,
  options: ReplayCommandOptions,
  output: Output,
): Promise<number> {
  const { dryRun, includeExpired, by, note, rate } = options;
  await using queue = await openQueue(config);
  using opened = openStore(config.store, queue);
  const chosen = await choose(queue.deadLetterIndex.list(options.filter), options);
  using progress = output.progress('replay', chosen.length);
  const skipped: Partial<Record<SkipReason, number>> = {};
  let replayed = 0;
  let failed = 0;
  const parts = { ...queue, deadLetters: opened.deadLetters, mediaTtlMs: config.media.ttlMs, now: Date.now };
  const how = { note: { by, reason: note }, includeExpired, dryRun, ...(rate === undefined ? {} : { rate }) };
  const tellSums = (more: object = {}): void => {
    progress.stop();
    const sums = { dryRun, matched: chosen.length, replayed, skipped, failed, ...more };
    output.result(sums, () => sumsText(dryRun ? 'would replay' : 'replayed', replayed, chosen.length, failed));
  };

  function tell(letter: DeadLetterSummary, done: Replayed): void {
    const named = nameOf(letter);
    progress.advance(1);
    if (done.outcome === 'replayed') {
      replayed += 1;
      if (dryRun)
        output.result(
          { ...named, outcome: 'would-replay' },
          () => `${titleOf(named)}: would replay (${letter.reason})`,
        );
    } else if (done.outcome === 'failed') {
      failed += 1;
      output.result({ ...named, ...done }, () => `${titleOf(named)}: ${done.failure.code}`);
    } else {
      skipped[done.why] = (skipped[done.why] ?? 0) + 1;
      output.result({ ...named, ...done }, () => `${titleOf(named)}: skipped, ${SKIPPED[done.why]}`);
    }
  }

  try {
    for await (const { letter, done } of replayLetters(parts, chosen, how, NEVER)) tell(letter, done);
  } catch (error) {
    tellSums({ incomplete: true });
    throw error;
  }
  tellSums();
  return failed === 0 ? EXIT.done : EXIT.failed;
}

/** A command goes on until it is done or the process is ended. */
const NEVER = new AbortController().signal;

const SKIPPED: Readonly<Record<SkipReason, string>> = {
  expired: 'WeChat no longer has the media (--include-expired tries it all the same)',
  'not-a-job': 'it holds no MediaJob; correct the producer and enqueue the media anew',
  'not-open': 'it has been replayed, resolved or discarded meanwhile',
  missing: 'there is no letter in the bucket (dead-letters rebuild makes the list true again)',
  settling: 'a job of it is still in the queue; try again in a moment',
  'under-way': 'somebody else replays or discards it just now',
};

/** `dead-letters discard`: notes that nothing more is to be done. Exit 1 when one could not be. */
export async function discardDeadLetters(
  config: ConfigWithStore,
  options: MassOptions,
  output: Output,
): Promise<number> {
  await using queue = await openQueue(config);
  using opened = openStore(config.store, queue);
  const chosen = await choose(queue.deadLetterIndex.list(options.filter), options);
  using progress = output.progress('discard', chosen.length);
  const skipped: Partial<Record<SkipReason, number>> = {};
  let discarded = 0;
  let failed = 0;
  const tellSums = (more: object = {}): void => {
    progress.stop();
    const { dryRun } = options;
    const sums = { dryRun, matched: chosen.length, discarded, skipped, failed, ...more };
    output.result(sums, () => sumsText(dryRun ? 'would discard' : 'discarded', discarded, chosen.length, failed));
  };

  function tell(letter: DeadLetterSummary, done: Discarded): void {
    const named = nameOf(letter);
    progress.advance(1);
    if (done.outcome === 'failed') {
      failed += 1;
      output.result({ ...named, ...done }, () => `${titleOf(named)}: ${done.failure.code}`);
      return;
    }
    if (done.outcome === 'skipped') {
      skipped[done.why] = (skipped[done.why] ?? 0) + 1;
      output.result({ ...named, ...done }, () => `${titleOf(named)}: skipped, ${SKIPPED[done.why]}`);
      return;
    }
    discarded += 1;
    if (options.dryRun)
      output.result(
        { ...named, outcome: 'would-discard' },
        () => `${titleOf(named)}: would discard (${letter.reason})`,
      );
  }

  const desk = { ...queue, deadLetters: opened.deadLetters };
  const how = { note: { by: options.by, reason: options.note }, dryRun: options.dryRun };
  try {
    for await (const { letter, done } of discardLetters(desk, chosen, how, NEVER)) tell(letter, done);
  } catch (error) {
    tellSums({ incomplete: true });
    throw error;
  }
  tellSums();
  return failed === 0 ? EXIT.done : EXIT.failed;
}

function sumsText(did: string, count: number, matched: number, failed: number): string {
  if (matched === 0) return 'no open dead letter matches';
  return `${did} ${count} of ${matched}${failed > 0 ? `, ${failed} failed` : ''}`;
}

/** `dead-letters rebuild`: makes the list in Redis anew from the bucket. */
export async function rebuildDeadLetters(config: ConfigWithStore, output: Output): Promise<number> {
  await using queue = await openQueue(config);
  using opened = openStore(config.store, queue);
  using progress = output.progress('rebuild', 0);
  const sums = { letters: 0, open: 0, unreadable: 0, gone: 0 };
  for await (const { key } of opened.store.list(DEAD_LETTER_PREFIX, AbortSignal.timeout(24 * 60 * 60_000))) {
    const signal = AbortSignal.timeout(60_000);
    sums.letters += 1;
    progress.total(sums.letters);
    progress.advance(1);
    const document = await opened.store.readJson(key, signal);
    const letter = document.ok ? deadLetterSchema.safeParse(document.value).data : undefined;
    if (letter === undefined) {
      sums.unreadable += 1;
      output.result({ key, unreadable: true }, () => `${key}: can't be read`);
      continue;
    }
    const job = parseMediaJob(letter.job, Date.now());
    const jobId = job.ok ? mediaJobId(job.job) : invalidJobId(letter.mediaId);
    const lost = letter.status === 'replayed' && job.ok && !(await isKnown(queue, job.job.appId, jobId));
    if (letter.status === 'open' || lost) {
      await queue.deadLetterIndex.add(summaryOf(jobId, key, letter));
      sums.open += 1;
    } else if (letter.status === 'discarded') await queue.deadLetterIndex.discard(jobId, letter.deadline);
    else await queue.deadLetterIndex.remove(jobId);
  }
  for await (const { jobId, key } of queue.deadLetterIndex.list({})) {
    const letter = await opened.store.head(key, AbortSignal.timeout(60_000));
    if (!letter.ok) throw new FailureError(letter.failure);
    if (letter.value !== undefined) continue;
    await queue.deadLetterIndex.remove(jobId);
    sums.gone += 1;
  }
  progress.stop();
  output.result(
    sums,
    () =>
      `${sums.letters} letters in the bucket, ${sums.open} open, ${sums.unreadable} unreadable; ${sums.gone} listed without a letter`,
  );
  return sums.unreadable === 0 ? EXIT.done : EXIT.failed;
}

/** True while a replayed media waits, runs or is archived. If not, its job has been lost with Redis or by a crash. */
async function isKnown({ lanes, markers }: OpenQueue, appId: string, jobId: string): Promise<boolean> {
  const [job, [archivedKey]] = await Promise.all([lanes.lane(laneOf(appId)).peek(jobId), markers.find([jobId])]);
  return job !== undefined || archivedKey !== undefined;
}

/** Collects the letters first, so that those that come meanwhile are not concerned. An empty filter must be meant. */
async function choose(
  letters: AsyncIterable<DeadLetterSummary>,
  { filter, all }: MassOptions,
): Promise<DeadLetterSummary[]> {
  if (matchesAll(filter) && !all) {
    throw new CommandError(
      'this would concern every dead letter: give a filter, or --all if that is meant',
      EXIT.usage,
    );
  }
  return Array.fromAsync(letters);
}
