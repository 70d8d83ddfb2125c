import type { DeadLetter, DeadLetterSummary } from '../dead-letter/dead-letter.ts';
import { type Failure, FailureError, fail, type Result, succeed } from '../failure.ts';
import { deadlineOf } from '../media/deadline.ts';
import { mediaJobId } from '../media/media-job.ts';
import type { Gate } from '../queue/gates.ts';
import { laneOf, type PeekedJob } from '../queue/lane.ts';
import { LANE_STATES } from '../queue/media-status.ts';
import { parseStoredJob } from '../queue/stored-job.ts';
import { iso } from '../time.ts';
import { findDeadLetterKeys } from './find-dead-letter.ts';
import { type MediaName, variantOf } from './media-name.ts';
import {
  attemptsText,
  deadlineText,
  gateLines,
  instant,
  instantFrom,
  letterText,
  listedText,
  titleOf,
} from './media-story.ts';
import type { OpenQueue, OpenStore } from './open-queue.ts';
import { byteCount, fields } from './output.ts';

/** What is known of one media: for programs, for people, and why the bucket did not say more. */
export interface Known {
  readonly facts: object;
  readonly text: string;
  readonly trouble?: Failure;
}

/** Where is asked what is known of media. */
export interface Desk {
  readonly queue: Pick<OpenQueue, 'redis' | 'keys' | 'lanes' | 'gates' | 'markers' | 'deadLetterIndex'>;
  /** Absent where none is configured. */
  readonly bucket: Pick<OpenStore, 'store' | 'deadLetters'> | undefined;
  readonly mediaTtlMs: number;
  readonly now: number;
  /** How long each question to the bucket may take. */
  readonly bucketTimeoutMs: number;
}

/**
 * Where media are and what has happened to them, those left out of which nothing is known.
 *
 * What the queue knows is told also while the bucket can't be asked. The bucket is looked through only for what the
 * queue does not know: letters that are no longer open.
 *
 * @throws FailureError when nothing is known without the bucket, and it can't be asked.
 */
export async function knownMedia(desk: Desk, names: readonly MediaName[]): Promise<Known[]> {
  const inQueue = await Promise.all(names.map((name) => knownToQueue(desk, name)));
  const known = inQueue.filter((found) => found !== undefined);
  return known.length === 0 ? knownToBucket(desk, names) : known;
}

async function knownToQueue(desk: Desk, name: MediaName): Promise<Known | undefined> {
  const { lanes, gates, markers, deadLetterIndex } = desk.queue;
  const id = mediaJobId(name);
  // The lane first: a job leaves it when its marker or letter is written.
  const job = await lanes.lane(laneOf(name.appId)).peek(id);
  if (job !== undefined) {
    const gate = (await gates.list()).find(({ appId }) => appId === name.appId);
    return aboutJob(desk, name, job, gate);
  }
  const [[key], summary] = await Promise.all([markers.find([id]), deadLetterIndex.get(id)]);
  if (key !== undefined) return aboutArchived(desk, name, key);
  return summary === undefined ? undefined : aboutListed(desk, summary);
}

function aboutJob({ mediaTtlMs, now }: Desk, name: MediaName, job: PeekedJob, gate: Gate | undefined): Known {
  const state = LANE_STATES[job.state] ?? job.state;
  const parsed = parseStoredJob(job.data);
  const next = job.dueAt === undefined ? {} : { nextTryAt: iso(job.dueAt) };
  const closed =
    gate === undefined ? {} : { gate: { ...gate, closedAt: iso(gate.closedAt), probeAt: iso(gate.probeAt) } };
  const stateText = job.dueAt === undefined ? state : `${state}, next try ${instantFrom(job.dueAt, now)}`;
  const gateText: [string, ...string[]][] = gate === undefined ? [] : [['gate', ...gateLines(gate, now)]];
  if (!parsed.ok) {
    const { mistakes } = parsed;
    const rows = fields([['state', stateText], ['mistakes', ...mistakes], ...gateText]);
    return { facts: { ...name, state, ...next, mistakes, ...closed }, text: `${titleOf(name)}\n${rows}` };
  }
  const { kind, receivedAt } = parsed.stored.job;
  const { attempts, replayed = false, verdict } = parsed.stored.ledger;
  const deadline = deadlineOf(parsed.stored.job, mediaTtlMs);
  const given = verdict === undefined ? {} : { verdict };
  const facts = {
    ...name,
    state,
    ...next,
    receivedAt,
    deadline: iso(deadline),
    replayed,
    attempts,
    ...given,
    ...closed,
  };
  const rows = fields([
    ['state', stateText],
    ['verdict', verdict === undefined ? undefined : `${verdict.reason}: its dead letter is being written`],
    ['deadline', deadlineText(deadline, now)],
    ['received', instant(receivedAt)],
    ['kind', kind],
    ['replayed', replayed ? 'yes: it has been a dead letter' : undefined],
    ...gateText,
  ]);
  return { facts, text: `${titleOf(name)}\n${rows}\n\n${attemptsText(attempts)}` };
}

async function aboutArchived(desk: Desk, name: MediaName, key: string): Promise<Known> {
  const facts = { ...name, state: 'archived', key };
  const asked = await ask(desk, ({ store }, signal) => store.head(key, signal));
  if (asked === undefined || !asked.ok) {
    const text = `${titleOf(name)}\n${fields([
      ['state', 'archived'],
      ['key', key],
    ])}`;
    return { facts, text, ...(asked === undefined ? {} : { trouble: asked.failure }) };
  }
  if (asked.value === undefined) {
    const rows = fields([
      ['state', 'archived, but the object is missing in the bucket'],
      ['key', key],
    ]);
    return { facts: { ...facts, missing: true }, text: `${titleOf(name)}\n${rows}` };
  }
  const { sizeBytes, contentType, metadata } = asked.value;
  const rows = fields([
    ['state', 'archived'],
    ['key', key],
    ['size', `${byteCount(sizeBytes)}${sizeBytes < 1024 ? '' : ` (${sizeBytes} bytes)`}`],
    ['type', contentType],
    ...Object.entries(metadata).map(([label, value]): [string, string] => [label, value]),
  ]);
  return { facts: { ...facts, sizeBytes, contentType, metadata }, text: `${titleOf(name)}\n${rows}` };
}

async function aboutListed(desk: Desk, summary: DeadLetterSummary): Promise<Known> {
  const { key } = summary;
  const read = await ask(desk, ({ deadLetters }, signal) => deadLetters.read(key, signal));
  if (read?.ok === true && read.value !== undefined) return aboutLetter(key, read.value, desk.now);
  const trouble = read?.ok === false ? { trouble: read.failure } : {};
  const variant = variantOf(summary.jobId, summary);
  const facts = { ...summary, ...(variant === undefined ? {} : { variant }), state: 'dead' };
  return { facts, text: listedText(summary, desk.now), ...trouble };
}

function aboutLetter(key: string, letter: DeadLetter, now: number): Known {
  const states = { open: 'dead', replayed: 'replayed', resolved: 'archived', discarded: 'discarded' } as const;
  return { facts: { state: states[letter.status], ...letter }, text: letterText(key, letter, now) };
}

/** What is left to know of media that are in no place of the queue: how they were settled. @throws FailureError */
async function knownToBucket(desk: Desk, names: readonly MediaName[]): Promise<Known[]> {
  const { queue, now } = desk;
  const notes = await Promise.all(names.map((name) => queue.redis.exists(queue.keys.discarded(mediaJobId(name)))));
  const discarded = names.filter((_, index) => notes[index] === 1);
  const letters = await ask(desk, async ({ store, deadLetters }, signal) => {
    const found: Known[] = [];
    for (const key of await findDeadLetterKeys(store, names, signal)) {
      const letter = await deadLetters.read(key, signal);
      if (!letter.ok) return letter;
      if (letter.value !== undefined) found.push(aboutLetter(key, letter.value, now));
    }
    return succeed(found);
  });
  if (letters?.ok === true && letters.value.length > 0) return letters.value;
  if (letters?.ok === false && discarded.length === 0) throw new FailureError(letters.failure);
  return discarded.map((name) => ({
    facts: { ...name, state: 'discarded' },
    text: `${titleOf(name)}\n${fields([['state', 'discarded']])}`,
    ...(letters?.ok === false ? { trouble: letters.failure } : {}),
  }));
}

/** Asks the bucket, which may be away, and for a bounded time. Returns `undefined` when none is configured. */
async function ask<T>(
  { bucket, bucketTimeoutMs }: Desk,
  question: (bucket: NonNullable<Desk['bucket']>, signal: AbortSignal) => Promise<Result<T>>,
): Promise<Result<T> | undefined> {
  if (bucket === undefined) return undefined;
  const signal = AbortSignal.timeout(bucketTimeoutMs);
  try {
    return await question(bucket, signal);
  } catch (error) {
    if (error instanceof FailureError) return { ok: false, failure: error.failure };
    if (signal.aborted) return fail('store-unreachable', { detail: `no answer in ${bucketTimeoutMs} ms` });
    throw error;
  }
}
