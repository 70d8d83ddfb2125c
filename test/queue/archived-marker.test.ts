import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { mediaJobId } from '../../src/media/media-job.ts';
import { type ArchivedMarkers, createArchivedMarkers } from '../../src/queue/archived-marker.ts';
import { mediaKey } from '../../src/store/object-keys.ts';
import { DAY, HOUR } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { testJob } from '../support/jobs.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const clock = testClock();
let corner: TestRedis;
let markers: ArchivedMarkers;

beforeEach(async () => {
  corner = await openTestRedis();
  markers = createArchivedMarkers(corner.redis, corner.keys, clock.now);
});

afterEach(() => corner[Symbol.asyncDispose]());

describe('a marker', () => {
  test.each([
    ['a picture', testJob(), 'jpg'],
    ['a media that nobody said the kind of', (({ kind: _, ...job }) => job)(testJob()), 'bin'],
    ['a variant', testJob({ kind: 'voice', variant: 'hd-voice' }), 'speex'],
    ['a media_id of dashes', testJob({ mediaId: '--_--' }), 'mp4'],
    ['the longest media_id', testJob({ mediaId: 'x'.repeat(256) }), 'jpg'],
  ])('tells where %s lies', async (_name, job, extension) => {
    const key = mediaKey(job, extension);
    await markers.mark(mediaJobId(job), { key }, clock.now());
    expect(await markers.find([mediaJobId(job)])).toEqual([key]);
  });

  test('tells also of a key that is laid out in another way', async () => {
    await markers.mark('wx-a', { key: 'somewhere/else' }, clock.now());
    expect(await markers.find(['wx-a'])).toEqual(['somewhere/else']);
  });

  test('may be set again', async () => {
    const job = testJob();
    for (const extension of ['jpg', 'png']) {
      await markers.mark(mediaJobId(job), { key: mediaKey(job, extension) }, clock.now());
    }
    expect(await markers.find([mediaJobId(job)])).toEqual([mediaKey(job, 'png')]);
  });

  test.each([
    ['a day past the deadline', 72 * HOUR, 72 * HOUR + DAY],
    ['a day at least, for a replay past the deadline', -30 * DAY, DAY],
  ])('is kept %s', async (_name, leftMs, keptMs) => {
    await markers.mark('wx-a', { key: 'k' }, clock.now() + leftMs);
    const left = await corner.redis.pttl(corner.keys.archived('wx-a'));
    expect(left).toBeLessThanOrEqual(keptMs);
    expect(left).toBeGreaterThan(keptMs - HOUR);
  });

  test('takes little room, as there are millions of them', async () => {
    const job = testJob();
    await markers.mark(mediaJobId(job), { key: mediaKey(job, 'jpg') }, clock.now());
    expect(await corner.redis.strlen(corner.keys.archived(mediaJobId(job)))).toBeLessThan(40);
  });
});

test('many are found at once, in their order, with nothing where there is none', async () => {
  const jobs = Array.from({ length: 300 }, () => testJob());
  const marked = jobs.filter((_, index) => index % 3 === 0);
  for (const job of marked) await markers.mark(mediaJobId(job), { key: mediaKey(job, 'jpg') }, clock.now());
  const found = await markers.find(jobs.map(mediaJobId));
  expect(found).toEqual(jobs.map((job, index) => (index % 3 === 0 ? mediaKey(job, 'jpg') : undefined)));
});

test('nobody asks about nothing', async () => {
  expect(await markers.find([])).toEqual([]);
});
