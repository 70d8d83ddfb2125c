import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type MediaJob, mediaJobId, parseMediaJob } from '../../src/media/media-job.ts';
import { mediaKey } from '../../src/store/object-keys.ts';
import { MINUTE } from '../../src/time.ts';
import { testClock } from '../support/clock.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';

const { now } = testClock('2026-06-15T12:00:00Z');
const parse = (input: unknown) => parseMediaJob(input, now());

/** The mistakes of an input. @throws when it has none. */
function mistakesOf(input: unknown): readonly string[] {
  const parsed = parse(input);
  if (parsed.ok) throw new Error(`taken for a job: ${JSON.stringify(parsed.job)}`);
  return parsed.mistakes;
}

const WHOLE = {
  v: 1,
  appId: APP_ID,
  mediaId: 'Zu_lHsH-3',
  kind: 'voice',
  receivedAt: '2026-06-15T11:00:00Z',
  variant: 'hd-voice',
  source: { messageId: '23456789012345678901', openId: 'oABC' },
  labels: { 'shop.id': '7', tag_2: '有图' },
};

describe('a MediaJob', () => {
  test('passes as it is', () => {
    expect(parse(WHOLE)).toEqual({ ok: true, job: WHOLE });
  });

  test('needs no more than its identity and its time', () => {
    const { v, appId, mediaId, receivedAt } = WHOLE;
    expect(parse({ v, appId, mediaId, receivedAt })).toEqual({ ok: true, job: { v, appId, mediaId, receivedAt } });
  });

  test.each([
    '2026-06-15T11:00:00Z',
    '2026-06-15T11:00:00.123Z',
    '2026-06-15T11:00:00.123456Z',
    '2024-02-29T00:00:00Z',
  ])('may have been received at %s', (receivedAt) => {
    expect(parse(testJob({ receivedAt })).ok).toBe(true);
  });

  test('may be as far ahead as clocks differ, and no further', () => {
    const ahead = (ms: number): boolean => parse(testJob({ receivedAt: new Date(now() + ms).toISOString() })).ok;
    expect(ahead(10 * MINUTE)).toBe(true);
    expect(ahead(10 * MINUTE + 1)).toBe(false);
  });
});

describe('a mistake is told by its field', () => {
  test.each<[string, unknown, RegExp]>([
    ['no version', { v: undefined }, /^v: /],
    ['a version to come', { v: 2 }, /^v: /],
    ['a version as text', { v: '1' }, /^v: /],
    ['no appId', { appId: undefined }, /^appId: /],
    ['an appId of another kind', { appId: 'gh_0123456789ab' }, /^appId: an appId is "wx" and 16 hexadecimal digits$/],
    ['an appId in capitals', { appId: 'wx0123456789ABCDEF' }, /^appId: an appId is/],
    ['an appId with a line feed', { appId: `${APP_ID}\n` }, /^appId: an appId is/],
    ['no mediaId', { mediaId: undefined }, /^mediaId: /],
    ['an empty mediaId', { mediaId: '' }, /^mediaId: a media_id is 1 to 256 characters/],
    ['a mediaId that is too long', { mediaId: 'a'.repeat(257) }, /^mediaId: a media_id is 1 to 256/],
    ['a number as mediaId', { mediaId: 123 }, /^mediaId: /],
    ['a kind that nobody knows', { kind: 'sticker' }, /^kind: .*"image"\|"voice"\|"video"\|"thumb"\|"file"/],
    ['no receivedAt', { receivedAt: undefined }, /^receivedAt: an ISO-8601 time in UTC such as /],
    ['a Unix time', { receivedAt: 1_781_521_200 }, /^receivedAt: an ISO-8601 time in UTC/],
    ['a Unix time as text', { receivedAt: '1781521200' }, /^receivedAt: an ISO-8601 time in UTC/],
    ['local time', { receivedAt: '2026-06-15T19:00:00+08:00' }, /^receivedAt: an ISO-8601 time in UTC/],
    ['time without a zone', { receivedAt: '2026-06-15T11:00:00' }, /^receivedAt: an ISO-8601 time in UTC/],
    ['a date', { receivedAt: '2026-06-15' }, /^receivedAt: an ISO-8601 time in UTC/],
    ['a day that is none', { receivedAt: '2026-02-30T00:00:00Z' }, /^receivedAt: an ISO-8601 time in UTC/],
    ['the future', { receivedAt: '2026-06-15T13:00:00Z' }, /^receivedAt: lies in the future/],
    ['a variant that nobody knows', { variant: 'hd' }, /^variant: /],
    ['a source that is a text', { source: 'oABC' }, /^source: /],
    ['a misspelt field of source', { source: { openid: 'oABC' } }, /^source: Unrecognized key: "openid"$/],
    ['an empty openId', { source: { openId: '' } }, /^source\.openId: /],
    ['a message id that is a number', { source: { messageId: 23_456 } }, /^source\.messageId: /],
    ['a label that is a number', { labels: { shop: 7 } }, /^labels\.shop: /],
    ['a label name with a space', { labels: { 'shop id': '7' } }, /^labels\.shop id: a label is named by 1 to 64 /],
    [
      'a label of no name of ours',
      { labels: JSON.parse('{"__proto__":"7"}') },
      /^labels: a label is not named __proto__$/,
    ],
    ['too long a label', { labels: { shop: 'x'.repeat(257) } }, /^labels\.shop: /],
    [
      'too many labels',
      { labels: Object.fromEntries(Array.from({ length: 17 }, (_, index) => [`l${index}`, ''])) },
      /^labels: at most 16 labels$/,
    ],
    ['a misspelt field', { media_id: 'x' }, /^job: Unrecognized key: "media_id"$/],
  ])('%s', (_name, fields, mistake) => {
    const mistakes = mistakesOf({ ...WHOLE, ...(fields as object) });
    expect(mistakes).toHaveLength(1);
    expect(mistakes[0]).toMatch(mistake);
  });

  test('and all of them at once', () => {
    const mistakes = mistakesOf({ v: 1, appId: 'x', mediaId: '', receivedAt: 'now' });
    expect(mistakes.map((mistake) => mistake.split(':')[0])).toEqual(['appId', 'mediaId', 'receivedAt']);
  });

  test('and no more of them, nor longer ones, than somebody reads', () => {
    const long = 'x'.repeat(100_000);
    const labels = Object.fromEntries(
      Array.from({ length: 1_000 }, (_, index) => [`${index} ${long.slice(0, 500)}`, 7]),
    );
    for (const wrong of [{ labels }, { labels: { [long]: '' } }, { [long]: 1 }, { source: { [long]: 1 } }]) {
      expect(mistakesOf({ ...WHOLE, ...wrong }).join().length).toBeLessThan(20 * 700);
    }
  });

  test.each([undefined, null, 1, 'text', [], [WHOLE], () => WHOLE])('%o is no job', (input) => {
    expect(mistakesOf(input)[0]).toMatch(/^job: /);
  });
});

test('no mistake repeats a value, which may be an openId', () => {
  const openId = 'oSENDER-0123456789'.padEnd(129, 'x');
  const places = [
    { source: { openId } },
    { source: { messageId: openId } },
    { source: openId },
    { mediaId: `${openId}:` },
    { appId: openId },
    { kind: openId },
    { receivedAt: openId },
    { labels: openId },
  ];
  for (const place of places) expect(mistakesOf({ ...WHOLE, ...place }).join()).not.toContain('oSENDER');
});

test('whatever is handed in is a job or has a mistake for a reader', () => {
  const values = fc.oneof(
    fc.anything(),
    fc.record(
      {
        v: fc.oneof(fc.constant(1), fc.anything()),
        appId: fc.oneof(fc.constant(APP_ID), fc.string(), fc.anything()),
        mediaId: fc.oneof(fc.constant('abc'), fc.string({ unit: 'binary' }), fc.anything()),
        kind: fc.oneof(fc.constant('image'), fc.anything()),
        receivedAt: fc.oneof(
          fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
          fc.date().map(String),
          fc.anything(),
        ),
        source: fc.oneof(fc.record({ openId: fc.string(), messageId: fc.string() }), fc.anything()),
        labels: fc.oneof(fc.dictionary(fc.string(), fc.string()), fc.anything()),
      },
      { requiredKeys: ['v', 'appId', 'mediaId', 'receivedAt'] },
    ),
  );
  fc.assert(
    fc.property(values, (input) => {
      const parsed = parse(input);
      if (!parsed.ok) {
        expect(parsed.mistakes.length).toBeGreaterThan(0);
        for (const mistake of parsed.mistakes) expect(mistake).toMatch(/^.+: \S/s);
        return;
      }
      expect(parsed.job).toEqual(input);
      expect(mediaKey(parsed.job, 'jpg')).toMatch(/\/dt=\d{4}-\d\d-\d\d\//);
      expect(JSON.parse(JSON.stringify(parsed.job))).toEqual(parsed.job);
    }),
    { numRuns: 2_000 },
  );
});

describe('the id of a media', () => {
  test('is its app and its media_id, unchanged', () => {
    expect(mediaJobId({ appId: APP_ID, mediaId: 'Zu_lHsH-3' })).toBe(`${APP_ID}-Zu_lHsH-3`);
    expect(mediaJobId({ appId: APP_ID, mediaId: 'Zu_lHsH-3', variant: 'hd-voice' })).toBe(
      `${APP_ID}-Zu_lHsH-3.hd-voice`,
    );
  });

  test('differs for every two media, and holds nothing that means something to Redis, BullMQ or S3', () => {
    const jobs = fc.record({
      appId: fc.constantFrom(APP_ID, OTHER_APP_ID),
      mediaId: fc.string({ minLength: 1, maxLength: 12, unit: fc.constantFrom(...'aZ09_-') }),
      variant: fc.constantFrom<MediaJob['variant']>(undefined, 'hd-voice'),
    });
    fc.assert(
      fc.property(jobs, jobs, (one, other) => {
        const same = one.appId === other.appId && one.mediaId === other.mediaId && one.variant === other.variant;
        const ids = [one, other].map(mediaJobId);
        expect(ids[0] === ids[1]).toBe(same);
        for (const id of ids) expect(id).toMatch(/^wx[0-9a-f]{16}-[A-Za-z0-9_-]+(\.hd-voice)?$/);
      }),
    );
  });

  test.each([
    'a:b',
    '../../etc/passwd',
    'a/b',
    'a b',
    'a.b',
    'a%2Fb',
    'a\0b',
    'a\nb',
    'a\r\nDEL x',
    '{tag}',
    '*',
    '媒体',
    'é',
    'a\u202eb',
    '<x>',
    '"',
    '$(x)',
  ])('%j is no media_id', (mediaId) => {
    expect(mistakesOf({ ...WHOLE, mediaId })).toEqual([
      'mediaId: a media_id is 1 to 256 characters of A-Z, a-z, 0-9, "_" and "-"',
    ]);
  });

  test.each(['0', '-1', '--help', '__proto__', 'constructor', 'null', '_', '-', 'a'.repeat(256)])(
    '%j is a media_id like any other',
    (mediaId) => {
      expect(parse({ ...WHOLE, mediaId })).toEqual({ ok: true, job: { ...WHOLE, mediaId } });
    },
  );
});
