import { setTimeout as sleep } from 'node:timers/promises';
import { ACCEPTED_TABLE } from '../../../src/catalog/accepted-table.ts';
import { MEDIA_TABLE } from '../../../src/catalog/media-table.ts';
import { mediaJobId } from '../../../src/media/media-job.ts';
import { laneOf } from '../../../src/queue/lane.ts';
import { type IngestProcess, pictureMessage, startIngest } from '../ingest-process.ts';
import { PICTURE } from '../speed/samples.ts';
import { openRig, type Rig, type Surroundings } from './rig.ts';

/**
 * Where the time of one picture goes, in milliseconds. `whole` and `answered` are timed in this process, from the moment
 * the push is sent. The other four follow each other and are the whole: they lie between stamps of one system clock, of
 * this process and of Redis, each in whole milliseconds and taken after the one before has been; so none is negative.
 */
export interface Spans {
  /** From the push until this bench sees the row of the archived media in the outbox. */
  readonly whole: number;
  /** From the push until it is answered `success`. A worker may be at work by then. */
  readonly answered: number;
  /** From the push until the door has noted the media as accepted, which it does in one way with queueing its job. */
  readonly accepted: number;
  /** From there until a worker has taken the job. */
  readonly taken: number;
  /** From there until the media is fetched and stored, and its row written. */
  readonly stored: number;
  /** From there until this bench sees the row. */
  readonly seen: number;
}

export interface Latency {
  readonly measured: readonly Spans[];
  /** Pictures of which not every stamp was seen; they are in no span. */
  readonly dropped: number;
}

/** What Redis has stamped, as Unix times in milliseconds. */
interface Stamps {
  accepted?: number;
  taken?: number;
  stored?: number;
}

/** Longer than one picture takes: the job of the one before has ended, and stamps fall anywhere within a millisecond. */
const PAUSE_MS = 10;

/**
 * Pushes one picture at a time to an ingest process, and follows it until a worker has archived it.
 *
 * @throws Error when more are dropped than `samples`.
 */
export async function measureLatency(surroundings: Surroundings, samples: number): Promise<Latency> {
  await using rig = await openRig(surroundings, 1);
  const { redisUrl, directory, appIds } = rig;
  await using ingest = await startIngest({ redisUrl, directory, appId: appIds[0] ?? '', connections: 1 });
  rig.startWorker();
  const measured: Spans[] = [];
  let dropped = 0;
  // The first are for the compiler.
  for (let warm = Math.ceil(samples / 4); measured.length < samples; warm -= 1) {
    const spans = await followOne(rig, ingest);
    if (warm <= 0) {
      if (spans !== undefined) measured.push(spans);
      else dropped += 1;
    }
    if (dropped > samples)
      throw new Error(`of ${dropped} pictures not every stamp was seen, of ${measured.length} it was`);
    await sleep(PAUSE_MS * (1 + Math.random()));
  }
  return { measured, dropped };
}

/** @returns `undefined` where not every stamp was seen: BullMQ keeps its events for a moment only. */
async function followOne(rig: Rig, ingest: IngestProcess): Promise<Spans | undefined> {
  const mediaId = rig.newMediaId(PICTURE.name);
  const push = ingest.pushOf(pictureMessage(mediaId));
  const ends = await endsOf(rig);
  const pushedAt = Date.now();
  const begun = performance.now();
  const answer = ingest.send(push).then((what) => ({ what, ms: performance.now() - begun }));
  const { accepted, taken, stored } = await stampsOf(rig, mediaId, ends);
  const whole = performance.now() - begun;
  const seenAt = Date.now();
  const { what, ms: answered } = await answer;
  if (what !== 'success') throw new Error(`a push was answered ${what}`);
  if (accepted === undefined || taken === undefined || stored === undefined) return undefined;
  return {
    whole,
    answered,
    accepted: accepted - pushedAt,
    taken: taken - accepted,
    stored: stored - taken,
    seen: seenAt - stored,
  };
}

/** The outbox, and BullMQ's events of the lane, which have an entry `active` for each job that is taken. */
function streamsOf({ queue, appIds: [appId = ''] }: Rig): readonly [outbox: string, events: string] {
  return [queue.keys.outbox, queue.lanes.lane(laneOf(appId)).keyOfJob('events')];
}

/** The last entries of both. */
async function endsOf(rig: Rig): Promise<string[]> {
  const lasts = await Promise.all(streamsOf(rig).map((key) => rig.redis.xrevrange(key, '+', '-', 'COUNT', 1)));
  return lasts.map(([last]) => last?.[0] ?? '0');
}

/** Reads what is added behind `ends`, without asking again and again, up to the row of the archived media. */
async function stampsOf(rig: Rig, mediaId: string, ends: readonly string[]): Promise<Stamps> {
  const [outbox, events] = streamsOf(rig);
  const jobId = mediaJobId({ appId: rig.appIds[0] ?? '', mediaId });
  const from = new Map([outbox, events].map((key, index) => [key, ends[index] ?? '0']));
  const stamps: Stamps = {};
  while (stamps.stored === undefined) {
    const read = await rig.redis.xread('BLOCK', 10_000, 'STREAMS', ...from.keys(), ...from.values());
    if (read === null) throw new Error('a media could not be archived at once');
    for (const [key, entries] of read) {
      for (const [id, fields] of entries) {
        from.set(key, id);
        const field = (name: string): string | undefined => fields[fields.indexOf(name) + 1];
        // The id of an entry says when Redis added it.
        const at = Number(id.split('-')[0]);
        if (key === events) {
          if (field('event') === 'active' && field('jobId') === jobId) stamps.taken = at;
        } else if (field('t')?.startsWith(ACCEPTED_TABLE.name)) stamps.accepted = at;
        else if (field('t')?.startsWith(MEDIA_TABLE.name)) stamps.stored = at;
      }
    }
  }
  return stamps;
}
