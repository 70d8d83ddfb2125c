import { createReadStream } from 'node:fs';
import type { Config } from '../config.ts';
import { MEDIA_KINDS } from '../media/kind.ts';
import { iso } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';
import { type OpenQueue, openQueue } from './open-queue.ts';
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

  await using queue = await openQueue(config);
  using progress = output.progress('enqueue', options.file === undefined ? mediaIds.length : 0);
  const sums = { accepted: 0, duplicates: 0, rejected: 0 };
  const source =
    options.file === undefined ? jobsOfArguments(appId ?? '', mediaIds, options) : jobsOfFile(options.file);
  let seen = 0;
  for await (const batch of batches(source)) {
    seen += batch.length;
    if (options.file !== undefined) progress.total(seen);
    const { accepted, duplicates, rejected } = await admit(queue, batch);
    sums.accepted += accepted;
    sums.duplicates += duplicates;
    sums.rejected += rejected.length;
    for (const { where, mistakes } of rejected)
      output.result({ rejected: where, mistakes }, () => `rejected ${where}: ${mistakes.join('; ')}`);
    progress.advance(batch.length);
  }
  progress.stop();
  output.result(sums, () => `accepted ${sums.accepted}, duplicates ${sums.duplicates}, rejected ${sums.rejected}`);
  return sums.rejected === 0 ? EXIT.done : EXIT.failed;
}

interface Entry {
  /** How the user knows it: its media_id, or its line. */
  readonly where: string;
  readonly job: unknown;
}

async function admit(
  queue: OpenQueue,
  batch: readonly Entry[],
): Promise<{ accepted: number; duplicates: number; rejected: { where: string; mistakes: readonly string[] }[] }> {
  const { accepted, duplicates, rejected } = await queue.door.admit(batch.map(({ job }) => job));
  return {
    accepted,
    duplicates,
    rejected: rejected.map(({ index, mistakes }) => ({ where: batch[index]?.where ?? '?', mistakes })),
  };
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
    yield { where: `line ${number}`, job: text === undefined ? undefined : parseLine(text) };
  }
}

async function* readable(input: AsyncIterable<Uint8Array>, file: string): AsyncGenerator<Uint8Array> {
  try {
    yield* input;
  } catch (error) {
    throw new CommandError(`${file} can't be read: ${error instanceof Error ? error.message : String(error)}`);
  }
}

/** A line that is no JSON is no job: the door says so. */
function parseLine(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
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
