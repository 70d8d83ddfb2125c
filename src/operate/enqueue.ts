import { createReadStream } from 'node:fs';
import type { Config } from '../config.ts';
import { MEDIA_KINDS } from '../media/kind.ts';
import { mediaJobSchema } from '../media/media-job.ts';
import { iso } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';
import { checkAppId } from './media-name.ts';
import { openQueue } from './open-queue.ts';
import type { Output } from './output.ts';
import { textLines } from './text-lines.ts';

export interface EnqueueOptions {
  readonly kind?: string;
  readonly receivedAt?: string;
  /** A file with one MediaJob a line; `-` is standard input. */
  readonly file?: string;
}

const BATCH = 500;
/** A MediaJob has some hundred bytes; a longer line is none, and must not fill the memory. */
const MAX_LINE_LENGTH = 64 * 1024;

/** `enqueue <appId> <mediaId>...` and `enqueue --file jobs.ndjson`. Exit 1 when any was rejected; the others are queued. */
export async function enqueue(
  config: Config,
  appId: string | undefined,
  mediaIds: readonly string[],
  options: EnqueueOptions,
  output: Output,
): Promise<number> {
  if ((options.file === undefined) === (appId === undefined)) {
    throw new CommandError('enqueue takes <appId> <mediaId>..., or --file', EXIT.usage);
  }
  if (options.file === undefined && mediaIds.length === 0)
    throw new CommandError('enqueue needs a <mediaId> at least', EXIT.usage);
  if (options.file !== undefined && (options.kind !== undefined || options.receivedAt !== undefined)) {
    throw new CommandError('--kind and --received-at do not go with --file: each line says its own', EXIT.usage);
  }
  if (options.kind !== undefined && !(MEDIA_KINDS as readonly string[]).includes(options.kind)) {
    throw new CommandError(`--kind is one of ${MEDIA_KINDS.join(', ')}`, EXIT.usage);
  }

  if (appId !== undefined) checkAppId(appId);
  if (options.receivedAt !== undefined && !mediaJobSchema.shape.receivedAt.safeParse(options.receivedAt).success) {
    throw new CommandError('--received-at is an ISO-8601 time in UTC such as 2026-01-31T12:00:00Z', EXIT.usage);
  }

  await using queue = await openQueue(config);
  using progress = output.progress('enqueue', options.file === undefined ? mediaIds.length : 0);
  const sums = { accepted: 0, duplicates: 0, rejected: 0 };
  const source =
    options.file === undefined ? jobsOfArguments(appId ?? '', mediaIds, options) : jobsOfFile(options.file);
  const reject = (where: string, mistakes: readonly string[]): void => {
    sums.rejected += 1;
    output.result({ rejected: where, mistakes }, () => `rejected ${where}: ${mistakes.join('; ')}`);
  };
  let seen = 0;
  try {
    for await (const batch of batches(source)) {
      seen += batch.length;
      if (options.file !== undefined) progress.total(seen);
      for (const { where, mistake } of batch) if (mistake !== undefined) reject(where, [mistake]);
      const jobs = batch.filter(({ mistake }) => mistake === undefined);
      const { accepted, duplicates, rejected } = await queue.door.admit(jobs.map(({ job }) => job));
      sums.accepted += accepted;
      sums.duplicates += duplicates;
      for (const { index, mistakes } of rejected) reject(jobs[index]?.where ?? '?', mistakes);
      progress.advance(batch.length);
    }
  } catch (error) {
    progress.stop();
    // Some of the batch that failed may be queued, too: repeating makes duplicates of them.
    if (sums.accepted + sums.duplicates + sums.rejected > 0)
      output.result(
        { ...sums, incomplete: true },
        () => `${sumsText(sums)}, then it failed: repeating it does no harm`,
      );
    throw error;
  }
  progress.stop();
  output.result(sums, () => sumsText(sums));
  return sums.rejected === 0 ? EXIT.done : EXIT.failed;
}

function sumsText({ accepted, duplicates, rejected }: Record<'accepted' | 'duplicates' | 'rejected', number>): string {
  return `accepted ${accepted}, duplicates ${duplicates}, rejected ${rejected}`;
}

interface Entry {
  /** How the user knows it: its media_id, or its line. */
  readonly where: string;
  readonly job: unknown;
  /** Why it is not even looked at. */
  readonly mistake?: string;
}

function* jobsOfArguments(
  appId: string,
  mediaIds: readonly string[],
  { kind, receivedAt }: EnqueueOptions,
): Generator<Entry> {
  const received = receivedAt ?? iso(Date.now());
  for (const mediaId of mediaIds) {
    yield {
      where: mediaId,
      job: { v: 1, appId, mediaId, receivedAt: received, ...(kind === undefined ? {} : { kind }) },
    };
  }
}

async function* jobsOfFile(file: string): AsyncGenerator<Entry> {
  const input = file === '-' ? process.stdin : createReadStream(file);
  for await (const { number, text } of textLines(readable(input, file), MAX_LINE_LENGTH)) {
    if (text?.trim() === '') continue;
    yield { where: `line ${number}`, ...(text === undefined ? TOO_LONG : parseLine(text)) };
  }
}

async function* readable(input: AsyncIterable<Uint8Array>, file: string): AsyncGenerator<Uint8Array> {
  try {
    yield* input;
  } catch (error) {
    throw new CommandError(
      `${file} can't be read: ${error instanceof Error ? error.message : String(error)}`,
      EXIT.usage,
    );
  }
}

const TOO_LONG = { job: undefined, mistake: `job: is longer than ${MAX_LINE_LENGTH} characters` };

function parseLine(text: string): Pick<Entry, 'job' | 'mistake'> {
  try {
    return { job: JSON.parse(text) as unknown };
  } catch {
    return { job: undefined, mistake: 'job: is not JSON' };
  }
}

async function* batches(source: Iterable<Entry> | AsyncIterable<Entry>): AsyncGenerator<Entry[]> {
  let batch: Entry[] = [];
  for await (const entry of source) {
    batch.push(entry);
    if (batch.length < BATCH) continue;
    yield batch;
    batch = [];
  }
  if (batch.length > 0) yield batch;
}
