import type { Config } from '../config.ts';
import { deadlineOf } from '../media/deadline.ts';
import { appIdSchema } from '../media/media-job.ts';
import { laneOf } from '../queue/lane.ts';
import { parseStoredJob } from '../queue/stored-job.ts';
import { iso } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';
import { findDeadLetterKey } from './find-dead-letter.ts';
import { openQueue, openStore } from './open-queue.ts';
import type { Output } from './output.ts';

/** BullMQ's states in our words. */
const STATES: Readonly<Record<string, string>> = {
  prioritized: 'waiting',
  waiting: 'waiting',
  wait: 'waiting',
  delayed: 'delayed',
  active: 'running',
};

/** `show <appId> <mediaId>`: where a media is and what has happened to it. Exit 1 when nothing is known of it. */
export async function show(config: Config, appId: string, mediaId: string, output: Output): Promise<number> {
  if (!appIdSchema.safeParse(appId).success)
    throw new CommandError(`${appId} is no appId: "wx" and 16 hexadecimal digits`, EXIT.usage);
  await using queue = await openQueue(config);
  const id = `${appId}-${mediaId}`;
  const signal = AbortSignal.timeout(60_000);
  const [inLane, [archivedKey]] = await Promise.all([
    queue.lanes.lane(laneOf(appId)).peek(id),
    queue.markers.find([id]),
  ]);

  if (inLane !== undefined) {
    const parsed = parseStoredJob(inLane.data);
    const facts = parsed.ok
      ? {
          receivedAt: parsed.stored.job.receivedAt,
          deadline: iso(deadlineOf(parsed.stored.job, config.media.ttlMs)),
          replayed: parsed.stored.ledger.replayed ?? false,
          attempts: parsed.stored.ledger.attempts,
        }
      : { mistakes: parsed.mistakes };
    return tell(output, { appId, mediaId, state: STATES[inLane.state] ?? inLane.state, ...facts });
  }
  if (config.store === undefined) {
    if (archivedKey !== undefined) return tell(output, { appId, mediaId, state: 'archived', key: archivedKey });
    const summary = await queue.deadLetterIndex.get(id);
    if (summary !== undefined) return tell(output, { ...summary, state: 'dead' });
    throw new CommandError(
      `nothing is known of ${appId} ${mediaId} in the queue; with ARCHIVE_BUCKET set, the bucket is asked too`,
    );
  }

  using opened = openStore(config.store, queue.deadLetterIndex);
  if (archivedKey !== undefined) {
    const head = await opened.store.head(archivedKey, signal);
    if (!head.ok) throw new CommandError(`the bucket can't be asked: ${head.failure.code}`);
    const missing = { appId, mediaId, state: 'archived', key: archivedKey, missing: true };
    return tell(output, head.value === undefined ? missing : { appId, mediaId, state: 'archived', ...head.value });
  }
  const key = await findDeadLetterKey(queue.deadLetterIndex, opened.store, appId, mediaId, signal);
  if (key !== undefined) {
    const letter = await opened.deadLetters.read(key, signal);
    if (letter.ok && letter.value !== undefined) {
      const state =
        letter.value.status === 'resolved' ? 'archived' : letter.value.status === 'open' ? 'dead' : letter.value.status;
      return tell(output, { state, ...letter.value });
    }
  }
  throw new CommandError(`nothing is known of ${appId} ${mediaId}`);
}

function tell(output: Output, facts: object): number {
  output.result(facts, () =>
    Object.entries(facts)
      .map(([name, value]) => `${name}: ${typeof value === 'object' ? JSON.stringify(value, null, 2) : String(value)}`)
      .join('\n'),
  );
  return EXIT.done;
}
