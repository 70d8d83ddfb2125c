import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseMediaJob } from '../../src/media/media-job.ts';
import { mediaJobsFromMessage, type WeixinMessage } from '../../src/media/message-media.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';

const NOW = Date.parse('2026-06-15T12:00:00Z');
const SENT = 1_781_524_000;
const COMMON = {
  ToUserName: 'gh_97417a04a28d',
  FromUserName: 'oPERSON',
  CreateTime: String(SENT),
  MsgId: '6089239057186927631',
};
const OPTIONS = { appId: APP_ID, now: NOW };

function jobsOf(fields: WeixinMessage): ReturnType<typeof mediaJobsFromMessage> {
  return mediaJobsFromMessage({ ...COMMON, ...fields }, OPTIONS);
}

function mediaOf(fields: WeixinMessage): Record<string, string | undefined> {
  return Object.fromEntries(jobsOf(fields).map(({ mediaId, kind }) => [mediaId, kind]));
}

test('a message becomes a job that the door takes', () => {
  const [job, ...more] = jobsOf({ MsgType: 'image', PicUrl: 'http://x', MediaId: 'A' });
  expect(more).toEqual([]);
  expect(job).toEqual({
    v: 1,
    appId: APP_ID,
    mediaId: 'A',
    kind: 'image',
    receivedAt: '2026-06-15T11:46:40.000Z',
    source: { messageId: '6089239057186927631', openId: 'oPERSON' },
  });
  expect(parseMediaJob(job, NOW).ok).toBe(true);
});

test.each<[WeixinMessage, Record<string, string | undefined>]>([
  [{ MsgType: 'text', Content: 'x' }, {}],
  [{ MsgType: 'image', MediaId: 'A' }, { A: 'image' }],
  [{ MsgType: 'voice', MediaId: 'A', Format: 'amr' }, { A: 'voice' }],
  [
    { MsgType: 'voice', MediaId: 'A', MediaId16K: 'B' },
    { A: 'voice', B: 'voice' },
  ],
  [
    { MsgType: 'video', MediaId: 'A', ThumbMediaId: 'B' },
    { A: 'video', B: 'thumb' },
  ],
  [
    { MsgType: 'shortvideo', MediaId: 'A', ThumbMediaId: 'B' },
    { A: 'video', B: 'thumb' },
  ],
  [{ MsgType: 'miniprogrampage', Title: 'x', AppId: OTHER_APP_ID, ThumbMediaId: 'B' }, { B: 'thumb' }],
  [{ MsgType: 'location', Location_X: '1' }, {}],
  [{ MsgType: 'link', Url: 'http://x' }, {}],
  [{ MsgType: 'file', FileKey: 'x' }, {}],
  [{ MsgType: 'event', Event: 'subscribe' }, {}],
  [{ MsgType: 'event', MediaId: 'A' }, {}],
  [
    { MsgType: 'a type of tomorrow', MediaId: 'A', MediaId16K: 'B', ThumbMediaId: 'C' },
    { A: undefined, B: 'voice', C: 'thumb' },
  ],
  [{ MsgType: 'constructor', MediaId: 'A' }, { A: undefined }],
  [{ MediaId: 'A' }, { A: undefined }],
  [{ MsgType: 'image', MediaId: '' }, {}],
  [
    { MsgType: 'image', MediaId: ['A', 'B'] },
    { A: 'image', B: 'image' },
  ],
  [{ MsgType: 'image', MediaId: 'a/b' }, { 'a/b': 'image' }],
])('the media of %j', (fields, expected) => {
  expect(mediaOf(fields)).toEqual(expected);
});

describe('what parsers make of a push', () => {
  const wrap = (of: (text: string) => unknown): WeixinMessage =>
    Object.fromEntries(
      Object.entries({ ...COMMON, MsgType: 'image', MediaId: 'A' }).map(([name, text]) => [name, of(text)]),
    );
  const expected = jobsOf({ MsgType: 'image', MediaId: 'A' });

  test.each<[string, WeixinMessage]>([
    ['texts', wrap((text) => text)],
    ['texts with white space', wrap((text) => `\n  ${text} `)],
    ['xml2js', { xml: wrap((text) => [text]) }],
    ['xml2js, with attributes', { xml: wrap((text) => [{ _: text, $: { a: '1' } }]) }],
    ['xml2js, without the root', wrap((text) => [text])],
    ['fast-xml-parser', { '?xml': '', xml: wrap((text) => ({ __cdata: text })) }],
    ['fast-xml-parser, by another name', { xml: wrap((text) => ({ '#text': '\n', '#cdata': text })) }],
    ['xml-js', { xml: wrap((text) => (/^\d+$/.test(text) ? { _text: text } : { _cdata: text })) }],
    ['xml2json', { xml: wrap((text) => ({ $t: text })) }],
    ['JSON with whole numbers', { ...wrap((text) => text), CreateTime: SENT, MsgId: 6089239057186927631n }],
    [
      'a null prototype',
      Object.assign(
        Object.create(null),
        wrap((text) => text),
      ),
    ],
  ])('%s: the same jobs', (_name, message) => {
    expect(mediaJobsFromMessage(message, OPTIONS)).toEqual(expected);
  });

  test.each<[unknown, string | undefined]>([
    ['49d72d67b16d115e7935ac386f2f0fa41535298877_1555684067', '49d72d67b16d115e7935ac386f2f0fa41535298877_1555684067'],
    [1234567890123456, '1234567890123456'],
    [Number('6089239057186927631'), undefined],
    [[{ _: Number('6089239057186927631') }], undefined],
    [Number.NaN, undefined],
    ['', undefined],
    ['x'.repeat(129), undefined],
    [{ a: 1 }, undefined],
    [undefined, undefined],
  ])('a MsgId of %j is %j', (MsgId, messageId) => {
    const [job] = jobsOf({ MsgType: 'image', MediaId: 'A', MsgId });
    expect(job?.source).toEqual({ openId: 'oPERSON', ...(messageId === undefined ? {} : { messageId }) });
    expect(parseMediaJob(job, NOW).ok).toBe(true);
  });

  test('a message that says neither its id nor its sender has no source', () => {
    const [job] = jobsOf({ MsgType: 'image', MediaId: 'A', MsgId: undefined, FromUserName: undefined });
    expect(job).not.toHaveProperty('source');
  });
});

test.each<[unknown, string]>([
  [SENT, '2026-06-15T11:46:40.000Z'],
  [`${SENT}`, '2026-06-15T11:46:40.000Z'],
  [`${SENT}123`, '2026-06-15T11:46:40.123Z'],
  [SENT * 1000, '2026-06-15T11:46:40.000Z'],
  ['1348831860', '2012-09-28T11:31:00.000Z'],
  // The door tells that it lies in the future.
  ['9999999999', '2286-11-20T17:46:39.000Z'],
  [undefined, '2026-06-15T12:00:00.000Z'],
  ['', '2026-06-15T12:00:00.000Z'],
  ['soon', '2026-06-15T12:00:00.000Z'],
  [0, '2026-06-15T12:00:00.000Z'],
  [-SENT, '2026-06-15T12:00:00.000Z'],
  [SENT + 0.5, '2026-06-15T12:00:00.000Z'],
  ['1e10', '2026-06-15T12:00:00.000Z'],
  ['9'.repeat(20), '2026-06-15T12:00:00.000Z'],
  [Number.NaN, '2026-06-15T12:00:00.000Z'],
])('a CreateTime of %j is %s', (CreateTime, receivedAt) => {
  expect(jobsOf({ MsgType: 'image', MediaId: 'A', CreateTime })[0]?.receivedAt).toBe(receivedAt);
});

test('without a time of either, the current time counts', () => {
  const before = Date.now();
  const [job] = mediaJobsFromMessage({ MsgType: 'image', MediaId: 'A' }, { appId: APP_ID });
  expect(Date.parse(job?.receivedAt ?? '')).toBeGreaterThanOrEqual(before);
  expect(Date.parse(job?.receivedAt ?? '')).toBeLessThanOrEqual(Date.now());
});

describe('the app', () => {
  const image = { ...COMMON, MsgType: 'image', MediaId: 'A' };

  test('is the one that is given', () => {
    expect(mediaJobsFromMessage({ ...image, ToUserName: OTHER_APP_ID }, OPTIONS)[0]?.appId).toBe(APP_ID);
  });

  test('is that of ToUserName in a cloud function', () => {
    expect(mediaJobsFromMessage({ ...image, ToUserName: OTHER_APP_ID })[0]?.appId).toBe(OTHER_APP_ID);
  });

  test.each([image, { ...image, ToUserName: undefined }, { ...image, MsgType: 'text' }])(
    'is asked for where nothing says it, before the first media is there: %j',
    (message) => {
      expect(() => mediaJobsFromMessage(message)).toThrow(/pass \{ appId \}/);
    },
  );
});

test.each([undefined, null, 'x', 7, [], [{ MsgType: 'image' }]])('%j is no message', (message) => {
  expect(() => mediaJobsFromMessage(message as unknown as WeixinMessage, OPTIONS)).toThrow(TypeError);
});

test('with an app, any object gives jobs', () => {
  const field = fc.constantFrom(
    'MsgType',
    'MediaId',
    'ThumbMediaId',
    'MediaId16K',
    'MsgId',
    'CreateTime',
    'FromUserName',
    'xml',
  );
  fc.assert(
    fc.property(fc.dictionary(field, fc.anything({ withBigInt: true })), (message) => {
      for (const job of mediaJobsFromMessage(message, OPTIONS)) expect(job).toMatchObject({ v: 1, appId: APP_ID });
    }),
  );
});
