import type { FaultAction } from '../../src/demo/weixin/fault.ts';
import { SAMPLE_FORMATS, type SampleFormat } from '../../src/demo/weixin/sample-media.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { type NewMedia, newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import type { FailureCode } from '../../src/failure.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { mediaJobId } from '../../src/media/media-job.ts';
import { between, DAY, iso, MINUTE, type Random } from '../../src/time.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { jobOf, type Stack } from '../support/stack.ts';
import { HARMLESS, SPOILING, SPOILING_VIDEO } from '../support/troubles.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
export const PART_SIZE_BYTES = 5 * MIB;
export const MAX_BYTES = 12 * MIB;

/** Every sender's openId begins so; with no key configured, none may be found anywhere. */
export const OPEN_ID_PREFIX = 'oChaosSender';

/** What must become of a media in the end, whatever happens on the way. */
export type Destiny =
  | { readonly end: 'archived' }
  /** Given up for one of these. */
  | { readonly end: 'dead'; readonly reasons: readonly FailureCode[] }
  /** Given up once, for something that is gone when an operator replays it. */
  | { readonly end: 'archived-by-replay' };

/** A media that somebody hands in. */
export interface Wish {
  readonly jobId: string;
  readonly job: MediaJob;
  readonly destiny: Destiny;
  /** What WeChat has; absent for a media_id that never existed. */
  readonly media?: SimulatedMedia;
}

const FORMATS = Object.keys(SAMPLE_FORMATS) as SampleFormat[];
const ARCHIVED: Destiny = { end: 'archived' };

/** The kinds of wishes, each with how many of a hundred are of it. */
const KINDS: readonly { readonly weight: number; readonly make: (stack: Stack, random: Random) => Wish }[] = [
  { weight: 68, make: (stack, random) => wishFor(stack, random, sound(random), ARCHIVED) },
  { weight: 3, make: (stack, random) => wishFor(stack, random, large(random), ARCHIVED) },
  { weight: 4, make: (stack, random) => wishFor(stack, random, { ...sound(random), ...AS_VIDEO }, ARCHIVED) },
  {
    weight: 10,
    make: (stack, random) => {
      const { action } = oneOf(SPOILING, random);
      return armed(stack, wishFor(stack, random, sound(random), ARCHIVED), 'media', action, between(1, 3, random));
    },
  },
  {
    weight: 3,
    make: (stack, random) => {
      const { action } = oneOf(SPOILING_VIDEO, random);
      const wish = wishFor(stack, random, { ...sound(random), ...AS_VIDEO }, ARCHIVED);
      return armed(stack, wish, 'video', action, between(1, 4, random));
    },
  },
  {
    weight: 4,
    make: (stack, random) => {
      // Of a format that its first bytes tell: what says `text/plain` and has no magic can't be told from a text.
      const wish = wishFor(stack, random, { ...sound(random), format: 'amr' }, ARCHIVED);
      return armed(stack, wish, 'media', oneOf(HARMLESS, random), Number.POSITIVE_INFINITY);
    },
  },
  {
    weight: 2,
    make: (_stack, random) => {
      const job = withSource({ v: 1, appId: oneOf(APPS, random), mediaId: newMediaId(), receivedAt: iso(Date.now()) });
      return { jobId: mediaJobId(job), job, destiny: { end: 'dead', reasons: ['invalid-media-id'] } };
    },
  },
  {
    weight: 2,
    make: (stack, random) =>
      wishFor(
        stack,
        random,
        { ...sound(random), ageMs: 3 * DAY + MINUTE },
        // Past its deadline a media has one honest try, which may fail for any cause.
        { end: 'dead', reasons: ['media-expired', 'deadline-exceeded'] },
      ),
  },
  {
    weight: 1,
    make: (stack, random) =>
      wishFor(
        stack,
        random,
        { format: 'mp4', sizeBytes: MAX_BYTES + 1 },
        { end: 'dead', reasons: ['media-too-large'] },
      ),
  },
  {
    weight: 1,
    make: (stack, random) => {
      const wish = wishFor(stack, random, sound(random), { end: 'dead', reasons: ['media-type-unsupported'] });
      return armed(stack, wish, 'media', { type: 'errcode', errcode: 40004 }, Number.POSITIVE_INFINITY);
    },
  },
  {
    weight: 2,
    make: (stack, random) => {
      const wish = wishFor(stack, random, sound(random), { end: 'archived-by-replay' });
      return armed(stack, wish, 'media', { type: 'errcode', errcode: 40004 }, 1);
    },
  },
];

const APPS = [APP_ID, OTHER_APP_ID] as const;
const AS_VIDEO = { format: 'mp4', deliver: 'video-url' } as const;
const TOTAL_WEIGHT = KINDS.reduce((sum, { weight }) => sum + weight, 0);

/** Makes up media that users send just now, each with its destiny. */
export function makeWishes(stack: Stack, count: number, random: Random): Wish[] {
  return Array.from({ length: count }, () => {
    let left = random() * TOTAL_WEIGHT;
    for (const { weight, make } of KINDS) {
      left -= weight;
      if (left < 0) return make(stack, random);
    }
    throw new Error('the weights do not add up');
  });
}

function sound(random: Random): Omit<NewMedia, 'appId'> {
  // As many of 10 bytes to 100 as of 100 KB to 1 MB, thereabouts.
  return { format: oneOf(FORMATS, random), sizeBytes: Math.floor(10 * 30_000 ** random()) };
}

function large(random: Random): Omit<NewMedia, 'appId'> {
  const sizeBytes = oneOf([PART_SIZE_BYTES, PART_SIZE_BYTES + 1, 2 * PART_SIZE_BYTES, MAX_BYTES], random);
  return { format: 'mp4', sizeBytes, deliver: random() < 0.3 ? 'video-url' : 'bytes' };
}

function wishFor(stack: Stack, random: Random, media: Omit<NewMedia, 'appId'>, destiny: Destiny): Wish {
  const added = stack.simulator.addMedia({ appId: oneOf(APPS, random), ...media });
  const job = withSource(jobOf(added));
  return { jobId: mediaJobId(job), job, destiny, media: added };
}

function withSource(job: MediaJob): MediaJob {
  const { mediaId } = job;
  return { ...job, source: { messageId: `message-${mediaId.slice(0, 20)}`, openId: OPEN_ID_PREFIX + mediaId } };
}

function armed(stack: Stack, wish: Wish, endpoint: 'media' | 'video', action: FaultAction, times: number): Wish {
  stack.simulator.arm({ endpoint, mediaId: wish.job.mediaId, action, times });
  return wish;
}

export function oneOf<T>(values: readonly T[], random: Random): T {
  const chosen = values[Math.floor(random() * values.length)];
  if (chosen === undefined) throw new RangeError('nothing to choose from');
  return chosen;
}
