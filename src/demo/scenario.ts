import type { FailureCode } from '../failure.ts';
import type { MediaJob } from '../media/media-job.ts';
import { HOUR, iso } from '../time.ts';
import { SAMPLE_FORMATS, type SampleFormat } from './weixin/sample-media.ts';
import type { SimulatedMedia } from './weixin/simulated-media.ts';
import { newMediaId, type WeixinSimulator } from './weixin/weixin-simulator.ts';

export const DEMO_APPS = [
  { appId: 'wxdeadbeef00000001', secret: 'demo-secret-of-the-first-app', credential: 'stable_token' },
  { appId: 'wxdeadbeef00000002', secret: 'demo-secret-of-the-second-app', credential: 'token' },
] as const;

/** What the demo hands in, and what must come of it. */
export interface Scenario {
  readonly jobs: readonly MediaJob[];
  /** Jobs handed in a second time. */
  readonly again: readonly MediaJob[];
  /** The media that must lie in the bucket in the end. */
  readonly media: readonly SimulatedMedia[];
  readonly expected: ScenarioNumbers;
}

export interface ScenarioNumbers {
  readonly enqueued: number;
  readonly duplicates: number;
  readonly archived: number;
  readonly deadLettered: Partial<Record<FailureCode, number>>;
  /** Attempts that failed and were put back into the schedule. */
  readonly retries: number;
  readonly tokenRefreshes: number;
  readonly bytes: number;
  readonly verified: number;
}

interface Batch {
  readonly format: SampleFormat;
  readonly count: number;
  readonly fromBytes: number;
  readonly toBytes: number;
  readonly deliver?: 'video-url';
}

/** About what users send: mostly photos and short voice, some video. */
const ORDINARY: readonly Batch[] = [
  { format: 'jpeg', count: 150, fromBytes: 40_000, toBytes: 500_000 },
  { format: 'png', count: 30, fromBytes: 20_000, toBytes: 200_000 },
  { format: 'gif', count: 15, fromBytes: 10_000, toBytes: 100_000 },
  { format: 'amr', count: 30, fromBytes: 2_000, toBytes: 60_000 },
  { format: 'silk', count: 15, fromBytes: 2_000, toBytes: 60_000 },
  { format: 'speex', count: 5, fromBytes: 2_000, toBytes: 90_000 },
  { format: 'mp4', count: 12, fromBytes: 500_000, toBytes: 4_000_000 },
  { format: 'mp4', count: 8, fromBytes: 1_000_000, toBytes: 4_000_000, deliver: 'video-url' },
  // Larger than a part: a multipart upload.
  { format: 'mp4', count: 2, fromBytes: 18_000_000, toBytes: 20_000_000, deliver: 'video-url' },
];

const BUSY_BLIPS = 8;
const LONG_BUSY = 2;
const TRUNCATED = 4;
const DISGUISED = 2;
const WITHOUT_LENGTH = 3;
const MISTYPED = 3;
const INVALID = 6;
const EXPIRED = 5;
const REPEATED = 20;

/** -1 so often outlasts the tries within an attempt once, and not twice. */
const LONGER_THAN_AN_ATTEMPT = 5;

/** Sets up the simulator and returns what to hand in. Every number of the outcome is decided here. */
export function prepareScenario(simulator: WeixinSimulator): Scenario {
  for (const { appId, secret } of DEMO_APPS) simulator.addApp({ appId, secret });
  const [first] = DEMO_APPS;
  const media: SimulatedMedia[] = [];
  const add = (batch: Batch): void => {
    for (let index = 0; index < batch.count; index += 1) {
      // Every fourth is of the second app.
      const { appId } = DEMO_APPS[media.length % 4 === 3 ? 1 : 0];
      const share = batch.count === 1 ? 0 : index / (batch.count - 1);
      const sizeBytes = Math.round(batch.fromBytes + (batch.toBytes - batch.fromBytes) * share);
      media.push(
        simulator.addMedia({
          appId,
          format: batch.format,
          sizeBytes,
          ...(batch.deliver ? { deliver: batch.deliver } : {}),
        }),
      );
    }
  };
  for (const batch of ORDINARY) add(batch);

  const photos = media.filter(({ format }) => format === 'jpeg');
  const next = photos.values();
  const spoil = (count: number, arm: (mediaId: string) => void): void => {
    for (let index = 0; index < count; index += 1) arm(next.next().value?.mediaId ?? '');
  };
  spoil(BUSY_BLIPS, (mediaId) =>
    simulator.arm({ endpoint: 'media', mediaId, times: 2, action: { type: 'errcode', errcode: -1 } }),
  );
  spoil(LONG_BUSY, (mediaId) =>
    simulator.arm({
      endpoint: 'media',
      mediaId,
      times: LONGER_THAN_AN_ATTEMPT,
      action: { type: 'errcode', errcode: -1 },
    }),
  );
  spoil(TRUNCATED, (mediaId) => simulator.arm({ endpoint: 'media', mediaId, times: 1, action: { type: 'truncate' } }));
  spoil(DISGUISED, (mediaId) =>
    simulator.arm({ endpoint: 'media', mediaId, times: 1, action: { type: 'json-in-disguise', errcode: -1 } }),
  );
  spoil(WITHOUT_LENGTH, (mediaId) =>
    simulator.arm({ endpoint: 'media', mediaId, action: { type: 'no-length', framing: 'chunked' } }),
  );
  spoil(MISTYPED, (mediaId) =>
    simulator.arm({
      endpoint: 'media',
      mediaId,
      action: { type: 'wrong-type', contentType: 'text/plain', disposition: false },
    }),
  );

  const now = Date.now();
  const jobs: MediaJob[] = media.map(jobOf);
  for (let index = 0; index < INVALID; index += 1) {
    jobs.push({ v: 1, appId: first.appId, mediaId: newMediaId(), kind: 'image', receivedAt: iso(now) });
  }
  for (let index = 0; index < EXPIRED; index += 1) {
    const old = simulator.addMedia({ appId: first.appId, format: 'jpeg', ageMs: 73 * HOUR });
    jobs.push(jobOf(old));
  }
  return {
    jobs,
    again: jobs.slice(0, REPEATED),
    media,
    expected: {
      enqueued: jobs.length,
      duplicates: REPEATED,
      archived: media.length,
      deadLettered: { 'invalid-media-id': INVALID, 'media-expired': EXPIRED },
      // An unknown media_id is asked for once more before it is given up.
      retries: LONG_BUSY + TRUNCATED + INVALID,
      // One for each app, and one for the token that is rotated under way.
      tokenRefreshes: DEMO_APPS.length + 1,
      bytes: media.reduce((sum, { bytes }) => sum + bytes.sizeBytes, 0),
      verified: media.length,
    },
  };
}

function jobOf({ appId, mediaId, format, sentAt }: SimulatedMedia): MediaJob {
  return { v: 1, appId, mediaId, kind: SAMPLE_FORMATS[format].kind, receivedAt: iso(sentAt) };
}
