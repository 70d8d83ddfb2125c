import { expect, test, vi } from 'vitest';
import type { FaultAction, FaultEndpoint } from '../../src/demo/weixin/fault.ts';
import { SAMPLE_FORMATS, type SampleFormat } from '../../src/demo/weixin/sample-media.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import type { FailureCode } from '../../src/failure.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { DAY, iso, MINUTE, SECOND } from '../../src/time.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';
import { jobOf, keysBelow, lettersOf, notArchived, openJobs, untilIdle } from '../support/stack.ts';
import { HARMLESS, SPOILING, SPOILING_VIDEO } from '../support/troubles.ts';
import { openStackOfTwoApps } from './more-apps.ts';
import { openS3Door } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const MIB = 1024 * 1024;
const PART_SIZE_BYTES = 5 * MIB;
/** These have some seconds left, enough for an attempt of each on a slow machine. */
const SOON_GIVEN_UP_MS = 3 * DAY - 20 * SECOND;

const FORMATS = Object.keys(SAMPLE_FORMATS) as SampleFormat[];

test('of media in every kind of trouble two workers save all that can be saved, and bury the rest with its history', async () => {
  await using door = await openS3Door();
  await using stack = await openStackOfTwoApps({
    gateway: door.gateway,
    env: {
      ARCHIVE_PART_SIZE: '5MiB',
      MEDIA_MAX_BYTES: '16MiB',
      WEIXIN_RESPONSE_TIMEOUT_SECONDS: '3',
      WEIXIN_IDLE_TIMEOUT_SECONDS: '3',
    },
  });
  // Up before the time of any media begins to run out.
  const workers = [stack.worker(), stack.worker()];
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  const { simulator } = stack;
  const faultOf = new Map<string, object>();
  const armed = (endpoint: FaultEndpoint, action: FaultAction, times: number) => (media: SimulatedMedia) => {
    simulator.arm({ endpoint, mediaId: media.mediaId, action, times });
    faultOf.set(media.mediaId, { endpoint, action, times });
    return media;
  };
  const always = Number.POSITIVE_INFINITY;
  const asVideo = { format: 'mp4', deliver: 'video-url' } as const;

  const sizes = [1, 40, 4_100, 65_536, 300_000];
  const sound = [
    ...FORMATS.flatMap((format) => sizes.flatMap((sizeBytes) => stack.addMedia(1, { format, sizeBytes }))),
    ...[PART_SIZE_BYTES, PART_SIZE_BYTES + 1, 2 * PART_SIZE_BYTES, 16 * MIB].flatMap((sizeBytes) => [
      ...stack.addMedia(1, { format: 'mp4', sizeBytes }),
      ...stack.addMedia(1, { ...asVideo, sizeBytes }),
    ]),
    // Behind a gate that two others close: their last moments come all the same. Until then the token faults below may fall
    // on this app: then nobody asks for a token for up to 5, 10 and 20 s.
    ...stack.addMedia(5, { appId: OTHER_APP_ID, ageMs: SOON_GIVEN_UP_MS - 30 * SECOND }),
  ];
  const troubled = [
    ...SPOILING.flatMap(({ action }) => stack.addMedia(1).map(armed('media', action, 1))),
    ...SPOILING.flatMap(({ action }) => stack.addMedia(1, { format: 'amr' }).map(armed('media', action, 2))),
    ...SPOILING_VIDEO.flatMap(({ action }) => stack.addMedia(1, asVideo).map(armed('video', action, 1))),
    ...SPOILING_VIDEO.flatMap(({ action }) => stack.addMedia(1, asVideo).map(armed('video', action, 3))),
    ...HARMLESS.flatMap((action) => stack.addMedia(2).map(armed('media', action, always))),
  ];

  const doomed = new Map<string, { reason: FailureCode; failure: FailureCode; requests?: 'one an attempt' }>();
  const jobs: MediaJob[] = [...sound, ...troubled].map(jobOf);
  const doom = (job: MediaJob, fate: { reason: FailureCode; failure: FailureCode; requests?: 'one an attempt' }) => {
    jobs.push(job);
    doomed.set(job.mediaId, fate);
  };
  for (const { action, failure, withinAttempt } of SPOILING) {
    const [media] = stack.addMedia(1, { ageMs: SOON_GIVEN_UP_MS }).map(armed('media', action, always));
    const requests = withinAttempt ? {} : { requests: 'one an attempt' as const };
    if (media !== undefined) doom(jobOf(media), { reason: 'deadline-exceeded', failure, ...requests });
  }
  for (const { action, failure } of SPOILING_VIDEO) {
    const [media] = stack.addMedia(1, { ...asVideo, ageMs: SOON_GIVEN_UP_MS }).map(armed('video', action, always));
    if (media !== undefined) doom(jobOf(media), { reason: 'deadline-exceeded', failure });
  }
  for (const media of stack.addMedia(2, { appId: OTHER_APP_ID, ageMs: SOON_GIVEN_UP_MS }).map(jobOf)) {
    simulator.arm({ endpoint: 'media', mediaId: media.mediaId, action: { type: 'errcode', errcode: 45009 } });
    doom(media, { reason: 'deadline-exceeded', failure: 'quota-exhausted', requests: 'one an attempt' });
  }
  for (const media of stack.addMedia(2, { sizeBytes: 16 * MIB + 1 }))
    doom(jobOf(media), { reason: 'media-too-large', failure: 'media-too-large', requests: 'one an attempt' });
  for (const media of stack.addMedia(2).map(armed('media', { type: 'errcode', errcode: 40004 }, always)))
    doom(jobOf(media), {
      reason: 'media-type-unsupported',
      failure: 'media-type-unsupported',
      requests: 'one an attempt',
    });
  for (const media of stack.addMedia(2, { ageMs: 3 * DAY + MINUTE }))
    doom(jobOf(media), { reason: 'media-expired', failure: 'media-expired', requests: 'one an attempt' });
  for (let left = 2; left > 0; left -= 1) {
    const unknown: MediaJob = { v: 1, appId: APP_ID, mediaId: newMediaId(), receivedAt: iso(Date.now()) };
    doom(unknown, { reason: 'invalid-media-id', failure: 'invalid-media-id', requests: 'one an attempt' });
  }
  simulator.arm({ endpoint: 'token', action: { type: 'reset' }, times: 1 });
  simulator.arm({ endpoint: 'token', action: { type: 'html', status: 502 }, times: 1 });
  simulator.arm({ endpoint: 'token', action: { type: 'errcode', errcode: -1 }, times: 1 });

  expect(await stack.queue.door.admit(jobs)).toEqual({ accepted: jobs.length, duplicates: 0, rejected: [] });
  await untilIdle(stack, 100_000);

  const savable = [...sound, ...troubled];
  expect((await notArchived(stack, savable)).map((mediaId) => faultOf.get(mediaId) ?? mediaId)).toEqual([]);
  expect(await keysBelow(stack, 'media/')).toHaveLength(savable.length);

  const letters = await lettersOf(stack);
  expect(new Set(letters.map(({ mediaId }) => mediaId))).toEqual(new Set(doomed.keys()));
  expect(letters).toHaveLength(doomed.size);
  for (const letter of letters) {
    const { mediaId, job, reason, attempts, firstAttemptAt, diedAt, status } = letter;
    expect(job).toEqual(jobs.find((handedIn) => handedIn.mediaId === mediaId));
    expect(status).toBe('open');
    expect(firstAttemptAt).toBe(attempts[0]?.at);
    expect(attempts.every(({ at }, index) => at <= diedAt && at >= (attempts[index - 1]?.at ?? at))).toBe(true);
    const requests = simulator.counts.media.get(mediaId) ?? 0;
    const fate = doomed.get(mediaId);
    if (fate === undefined) throw new Error(`${mediaId} was not to die`);
    // A last try may come when it is gone at WeChat too.
    const reasons = fate.reason === 'deadline-exceeded' ? [fate.reason, 'media-expired'] : [fate.reason];
    expect(reasons, mediaId).toContain(reason);
    expect(attempts.map(({ failure }) => failure)).toContain(fate.failure);
    // An attempt for which no token was to be had asks for no media; on a slow machine an answer may come too late.
    const ofAnswers = [fate.failure, 'media-expired', 'weixin-timeout'];
    const asked = attempts.filter(({ failure }) => ofAnswers.includes(failure));
    if (fate.requests === 'one an attempt') expect(asked, mediaId).toHaveLength(requests);
    else expect(requests).toBeGreaterThanOrEqual(attempts.length);
  }
  const listed = await Array.fromAsync(stack.queue.deadLetterIndex.list({}));
  expect(new Set(listed.map(({ mediaId }) => mediaId))).toEqual(new Set(doomed.keys()));

  expect(await openJobs(stack)).toBe(0);
  expect([...door.openUploads]).toEqual([]);
  expect(await keysBelow(stack, '')).toHaveLength(savable.length + doomed.size);
  for (const worker of workers) expect(worker.log()).not.toContain('unexpected fault');
});
