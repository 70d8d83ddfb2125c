import type { AttemptRecord } from '../archive/attempt-record.ts';
import type { DeadLetter, DeadLetterSummary, OperatorNote } from '../dead-letter/dead-letter.ts';
import { FAILURES, type FailureCode } from '../failure.ts';
import { mediaJobSchema } from '../media/media-job.ts';
import type { Gate } from '../queue/gates.ts';
import { iso, SECOND } from '../time.ts';
import { type MediaName, variantOf } from './media-name.ts';
import { duration, fields, table, wrapped } from './output.ts';

/** An instant for people: ISO-8601 without fractions of a second. */
export function instant(time: number | string): string {
  const ms = typeof time === 'number' ? time : Date.parse(time);
  return Number.isNaN(ms) ? String(time) : iso(ms).replace(/\.\d+Z$/, 'Z');
}

/** With how long it is still to come, or ago. */
export function instantFrom(time: number | string, now: number): string {
  const ms = (typeof time === 'number' ? time : Date.parse(time)) - now;
  if (Number.isNaN(ms)) return String(time);
  return `${instant(time)} (${ms < 0 ? `${duration(-ms)} ago` : `in ${duration(ms)}`})`;
}

/** A deadline, with the time that is left. */
export function deadlineText(deadline: number | string, now: number): string {
  const left = (typeof deadline === 'number' ? deadline : Date.parse(deadline)) - now;
  if (Number.isNaN(left)) return String(deadline);
  return `${instant(deadline)} (${left < 0 ? `passed ${duration(-left)} ago` : `${duration(left)} left`})`;
}

/** How a media is called: its app, its id, its variant. */
export function titleOf({ appId, mediaId, variant }: MediaName): string {
  return [appId, mediaId, variant].filter((part) => part !== undefined).join(' ');
}

/** Why a gate is closed, since when and until when, in lines for people. */
export function gateLines({ reason, errcode, errmsg, detail, closedAt, probeAt }: Gate, now: number): string[] {
  const said = saidText({ errcode, errmsg });
  return [
    `closed for ${duration(now - closedAt)}: ${reason}${detail === undefined ? '' : ` (${detail})`}`,
    FAILURES[reason].hint,
    ...(said === '' ? [] : [`WeChat said: ${said}.`]),
    now >= probeAt ? 'The next job of this app looks whether it may open.' : `Next probe ${instantFrom(probeAt, now)}.`,
  ];
}

interface Said {
  readonly errcode?: number | undefined;
  readonly errmsg?: string | undefined;
  readonly detail?: string | undefined;
}

/** What a peer said of a failure, in one line. */
export function saidText({ errcode, errmsg, detail }: Said): string {
  return [errcode, errmsg, detail].filter((part) => part !== undefined && part !== '').join(' ');
}

/** The attempts of a media as a table, the last words under it. Columns that nobody fills are left out. */
export function attemptsText(attempts: readonly AttemptRecord[]): string {
  if (attempts.length === 0) return 'no failed attempt';
  const column = (head: string, cell: (attempt: AttemptRecord) => string | number | undefined) => ({
    head,
    cells: attempts.map((attempt) => cell(attempt) ?? '-'),
  });
  const columns = [
    column('at', ({ at }) => instant(at)),
    column('took', ({ durationMs }) => tookText(durationMs)),
    column('failure', ({ failure }) => failure),
    column('errcode', ({ errcode }) => errcode),
    column('http', ({ httpStatus }) => httpStatus),
    column('rid', ({ rid }) => rid),
  ].filter(({ cells }) => cells.some((cell) => cell !== '-'));
  const rows = attempts.map((_, row) => columns.map(({ cells }) => cells[row] ?? '-'));
  const grid = table(
    columns.map(({ head }) => head),
    rows,
  );
  const last = saidText({ ...attempts.at(-1), errcode: undefined });
  const title = attempts.length === 1 ? '1 failed attempt' : `${attempts.length} failed attempts`;
  return [title, grid, ...(last === '' ? [] : wrapped(`the last said: ${last}`))].join('\n');
}

function tookText(ms: number): string {
  return ms < SECOND ? `${ms} ms` : `${(ms / SECOND).toFixed(1)} s`;
}

/** A dead letter for people. @param key where it lies in the bucket. */
export function letterText(key: string | undefined, letter: DeadLetter, now: number): string {
  const { appId, mediaId, reason, diedAt, deadline, status, replays, discarded, archivedKey } = letter;
  const job = mediaJobSchema.safeParse(letter.job).data;
  const said = saidText(letter);
  const last = replays.at(-1);
  const ends: Record<DeadLetter['status'], string> = {
    open: 'dead',
    replayed: `replayed ${last === undefined ? '' : instantFrom(last.at, now)}`,
    resolved: 'archived, by a replay',
    discarded: 'discarded: nothing more is to be done about it',
  };
  return [
    titleOf({ appId, mediaId, ...(job?.variant === undefined ? {} : { variant: job.variant }) }),
    fields([
      ['state', ends[status]],
      ['given up', instantFrom(diedAt, now)],
      ['reason', said === '' ? reason : `${reason} (${said})`, FAILURES[reason].hint],
      ['deadline', deadline === null ? undefined : deadlineText(deadline, now)],
      ['received', job === undefined ? undefined : instant(job.receivedAt)],
      ['kind', job?.kind],
      ['rid', letter.rid],
      ...replays.map((replay): [string, string] => ['replay', noteText(replay)]),
      ['discarded', discarded === undefined ? undefined : noteText(discarded)],
      ['archived', archivedKey],
      ['letter', key],
      // What was no MediaJob is told as it came.
      ['payload', job === undefined ? JSON.stringify(letter.job) : undefined],
    ]),
    '',
    attemptsText(letter.attempts),
  ].join('\n');
}

function noteText({ at, by, reason }: OperatorNote & { readonly at: string }): string {
  return `${instant(at)} by ${by}${reason === '' ? '' : `: ${reason}`}`;
}

/** A dead letter of which only the list tells. */
export function listedText(summary: DeadLetterSummary, now: number): string {
  const { appId, mediaId, jobId, key, reason, errcode, diedAt, deadline, attempts } = summary;
  const variant = variantOf(jobId, summary);
  const hint = Object.hasOwn(FAILURES, reason) ? FAILURES[reason as FailureCode].hint : undefined;
  const rows = fields([
    ['state', 'dead'],
    ['given up', instantFrom(diedAt, now)],
    ['reason', errcode === undefined ? reason : `${reason} (${errcode})`, hint],
    ['deadline', deadline === null ? undefined : deadlineText(deadline, now)],
    ['attempts', String(attempts)],
    ['letter', key],
  ]);
  return `${titleOf({ appId, mediaId, ...(variant === undefined ? {} : { variant }) })}\n${rows}`;
}
