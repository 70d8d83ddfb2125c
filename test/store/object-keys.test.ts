import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { MEDIA_KINDS } from '../../src/media/kind.ts';
import { type MediaJob, mediaJobId, parseMediaJob } from '../../src/media/media-job.ts';
import { extensionOfDisposition } from '../../src/media/media-type.ts';
import { dayOf, deadLetterKey, keyOfPlace, mediaKey, mediaKeyStem, placeOfKey } from '../../src/store/object-keys.ts';
import { testJob } from '../support/jobs.ts';

const ID_CHARACTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-';

const anyJob: fc.Arbitrary<MediaJob> = fc.record(
  {
    v: fc.constant(1 as const),
    appId: fc
      .string({ unit: fc.constantFrom(...'0123456789abcdef'), minLength: 16, maxLength: 16 })
      .map((hex) => `wx${hex}`),
    mediaId: fc.string({ unit: fc.constantFrom(...ID_CHARACTERS), minLength: 1, maxLength: 256 }),
    kind: fc.constantFrom(...MEDIA_KINDS),
    receivedAt: fc
      .date({ min: new Date('2011-01-01'), max: new Date('2099-12-31'), noInvalidDate: true })
      .map((date) => date.toISOString()),
    variant: fc.constant('hd-voice' as const),
  },
  { requiredKeys: ['v', 'appId', 'mediaId', 'receivedAt'] },
);
const anyExtension = fc.string({
  unit: fc.constantFrom(...'abcdefghijklmnopqrstuvwxyz0123456789'),
  minLength: 1,
  maxLength: 8,
});

function nameOf({ mediaId, variant }: MediaJob): string {
  return variant === undefined ? mediaId : `${mediaId}.${variant}`;
}

describe('the key of a media', () => {
  test('is app, kind, UTC day, media id and extension', () => {
    const job = testJob({ mediaId: 'A-_1', kind: 'voice', receivedAt: '2026-06-15T23:59:59.999Z' });
    expect(mediaKey(job, 'amr')).toBe('media/app=wx0123456789abcdef/kind=voice/dt=2026-06-15/A-_1.amr');
    expect(deadLetterKey(job)).toBe('dead-letters/app=wx0123456789abcdef/dt=2026-06-15/A-_1.json');
  });

  test('has the kind unknown when nobody said', () => {
    const { kind: _, ...job } = testJob({ mediaId: 'A' });
    expect(mediaKey(job, 'jpg')).toBe('media/app=wx0123456789abcdef/kind=unknown/dt=2026-06-15/A.jpg');
  });

  test('names its variant', () => {
    const job = testJob({ mediaId: 'A', kind: 'voice', variant: 'hd-voice' });
    expect(mediaKey(job, 'speex')).toMatch(/\/A\.hd-voice\.speex$/);
    expect(deadLetterKey(job)).toMatch(/\/A\.hd-voice\.json$/);
  });

  test('comes back from its place', () => {
    fc.assert(
      fc.property(anyJob, anyExtension, (job, extension) => {
        const key = mediaKey(job, extension);
        const place = placeOfKey(key);
        expect(place).toEqual({ kind: job.kind ?? 'unknown', day: dayOf(job.receivedAt), extension });
        if (place !== undefined) expect(keyOfPlace(job.appId, nameOf(job), place)).toBe(key);
      }),
    );
  });

  test('is that of no other media', () => {
    fc.assert(
      fc.property(anyJob, anyJob, anyExtension, (one, other, extension) => {
        fc.pre(mediaJobId(one) !== mediaJobId(other));
        expect(mediaKey(one, extension)).not.toBe(mediaKey(other, extension));
        expect(deadLetterKey(one)).not.toBe(deadLetterKey(other));
      }),
    );
  });

  test('stays in its folder and needs no escape, whatever the media is called', () => {
    fc.assert(
      fc.property(anyJob, anyExtension, (job, extension) => {
        for (const key of [mediaKey(job, extension), deadLetterKey(job)]) {
          expect(key).toMatch(/^[A-Za-z0-9_=./-]{1,1024}$/);
          expect(key.split('/')).not.toContain('');
          for (const segment of key.split('/')) expect(segment).not.toMatch(/^\.{0,2}$/);
          expect(key).toBe(new URL(key, 'http://store/').pathname.slice(1));
        }
        expect(mediaKey(job, extension).split('/')).toHaveLength(5);
        expect(mediaKey(job, extension).startsWith(`${mediaKeyStem(job)}.`)).toBe(true);
      }),
    );
  });

  test('holds nothing of who sent it', () => {
    const job = testJob({ source: { openId: 'oABC-openid', messageId: '24' }, labels: { who: 'oABC-openid' } });
    expect(mediaKey(job, 'jpg') + deadLetterKey(job)).not.toContain('oABC');
  });
});

describe('an id that would leave its folder', () => {
  test.each([
    '../../etc/passwd',
    '..',
    '.',
    '',
    'a/b',
    'a\\b',
    'a%2Fb',
    'a b',
    'a\nb',
    'a\u0000b',
    'ａ',
    'a.jpg',
    'x'.repeat(257),
  ])('%j is no media id', (mediaId) => {
    expect(parseMediaJob(testJob({ mediaId }), Date.parse('2026-06-15T12:00:00Z'))).toMatchObject({ ok: false });
  });

  test.each(['../wx0123456789abcd', 'wx0123456789abcde/', 'wx0123456789ABCDEF', 'wx0123456789abcdef\n', ''])(
    '%j is no appId',
    (appId) => {
      expect(parseMediaJob(testJob({ appId }), Date.parse('2026-06-15T12:00:00Z'))).toMatchObject({ ok: false });
    },
  );

  test('of a file name gives an extension of letters and digits, or none', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (name) => {
        const extension = extensionOfDisposition(`attachment; filename="${name}"`);
        if (extension !== undefined) expect(extension).toMatch(/^[a-z0-9]{1,8}$/);
      }),
    );
  });
});

test.each([
  '',
  'media/',
  'dead-letters/app=wx0123456789abcdef/dt=2026-06-15/A.json',
  'media/app=wx0123456789abcdef/kind=image/dt=2026-06-15/A',
  'media/app=wx0123456789abcdef/kind=image/dt=2026-06-15/A.',
  'media/app=wx0123456789abcdef/kind=image/dt=2026-06-15/a/A.jpg',
  'media/app=wx0123456789abcdef/dt=2026-06-15/A.jpg',
  'media/app=/kind=image/dt=2026-06-15/A.jpg',
  'x/media/app=wx0123456789abcdef/kind=image/dt=2026-06-15/A.jpg',
])('%j is not the key of a media', (key) => {
  expect(placeOfKey(key)).toBeUndefined();
});

test.each([
  ['2026-06-15T00:00:00Z', '2026-06-15'],
  ['2026-06-14T23:59:59.999Z', '2026-06-14'],
  ['2026-12-31T23:59:59Z', '2026-12-31'],
  ['2028-02-29T12:00:00.5Z', '2028-02-29'],
])('the day of %s is %s', (instant, day) => {
  expect(dayOf(instant)).toBe(day);
});
