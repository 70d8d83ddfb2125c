import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  annotationsOf,
  contentTypeOf,
  describeObject,
  extensionOf,
  factsOf,
} from '../../src/archive/object-metadata.ts';
import { MEDIA_KINDS } from '../../src/media/kind.ts';
import { mimeOf } from '../../src/media/media-type.ts';
import { VERSION } from '../../src/version.ts';
import { testJob } from '../support/jobs.ts';
import { openEmbeddedBackend, openStoreBench, type S3Backend, type StoreBench, wholeObject } from '../support/store.ts';

const never = new AbortController().signal;
const ARCHIVED_AT = '2026-06-15T12:00:00.000Z';
/** What S3 and most others take in all, names and values. */
const MAX_METADATA_BYTES = 2_048;

let backend: S3Backend;
let bench: StoreBench;

beforeAll(async () => {
  backend = await openEmbeddedBackend();
  bench = await openStoreBench(backend);
});

afterAll(async () => {
  await bench[Symbol.asyncDispose]();
  await backend[Symbol.asyncDispose]();
});

/** Text of any kind, halves of surrogate pairs among it. */
const anyText = fc
  .array(fc.nat({ max: 0xffff }), { minLength: 1, maxLength: 128 })
  .map((units) => String.fromCharCode(...units));

const anyBody = fc.record(
  { declaredType: fc.string({ unit: 'binary' }).map((header) => mimeOf(header) ?? 'image/jpeg') },
  { requiredKeys: [] },
);

const ATTEMPT = {
  enqueuedAt: Date.parse('2026-06-15T11:00:00.000Z'),
  startedAt: Date.parse('2026-06-15T11:59:59.000Z'),
  attempt: 3,
  deadline: Date.parse('2026-06-18T10:59:00.000Z'),
};

describe('the metadata of an object', () => {
  test('say everything that is known of the media', () => {
    const openId = `hmac-sha256:${'0f'.repeat(32)}`;
    const job = testJob({
      mediaId: 'A',
      kind: 'voice',
      variant: 'hd-voice',
      source: { messageId: '6054768590064713728', openId },
      labels: { case: '42' },
    });
    const body = { declaredType: 'audio/amr', sniffed: { mime: 'audio/silk', extension: 'silk' } };
    expect(describeObject(job, body, ATTEMPT, ARCHIVED_AT, 'ab'.repeat(32))).toEqual({
      metadata: {
        'app-id': 'wx0123456789abcdef',
        'media-id': 'A',
        kind: 'voice',
        variant: 'hd-voice',
        'received-at': job.receivedAt,
        'enqueued-at': '2026-06-15T11:00:00.000Z',
        'started-at': '2026-06-15T11:59:59.000Z',
        'archived-at': ARCHIVED_AT,
        deadline: '2026-06-18T10:59:00.000Z',
        attempts: '3',
        sha256: 'ab'.repeat(32),
        'source-type': 'audio/amr',
        'sniffed-type': 'audio/silk',
        'message-id': '6054768590064713728',
        'open-id': openId,
        labels: Buffer.from('{"case":"42"}').toString('base64url'),
        'worker-version': VERSION,
        schema: '1',
      },
    });
  });

  test('leave out what is not known', () => {
    const { kind: _, ...job } = testJob();
    const { metadata } = describeObject(job, {}, undefined, ARCHIVED_AT);
    expect(Object.keys(metadata).sort()).toEqual(
      ['app-id', 'media-id', 'kind', 'received-at', 'archived-at', 'worker-version', 'schema'].sort(),
    );
    expect(metadata).toMatchObject({ kind: 'unknown' });
  });

  test('are short, printable ASCII without an openId, whatever the job says, and all of it can be read again', () => {
    let apart = 0;
    fc.assert(
      fc.property(
        anyText,
        anyText,
        fc.string({ unit: fc.constantFrom('x'), maxLength: 256, minLength: 1 }),
        anyBody,
        fc.dictionary(fc.stringMatching(/^[A-Za-z0-9_.-]{1,64}$/), fc.oneof(anyText, fc.constant('长'.repeat(256))), {
          maxKeys: 16,
        }),
        (messageId, text, mediaId, body, more) => {
          const openId = `open-id-${text}`;
          const labels = { note: openId, ...more };
          const job = testJob({ mediaId, source: { messageId, openId }, labels });
          const { metadata, annotations } = describeObject(job, body, ATTEMPT, ARCHIVED_AT, 'ab'.repeat(32));
          const whole = Object.entries(metadata).flat().join('');
          expect(whole).toMatch(/^[\x21-\x7e]*$/);
          expect(whole.length).toBeLessThanOrEqual(MAX_METADATA_BYTES);
          expect(whole).not.toContain('open-id-');

          const facts = factsOf(metadata);
          expect(facts?.hasAnnotationsApart).toBe(annotations !== undefined);
          if (annotations !== undefined) apart += 1;
          const said = { ...facts, ...annotationsOf(JSON.parse(JSON.stringify(annotations ?? {}))) };
          expect(said).toMatchObject({
            mediaId,
            messageId: messageId.toWellFormed(),
            openId: openId.toWellFormed(),
            labels: Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, value.toWellFormed()])),
            enqueuedAt: ATTEMPT.enqueuedAt,
            startedAt: ATTEMPT.startedAt,
            attempts: ATTEMPT.attempt,
            deadline: ATTEMPT.deadline,
          });
        },
      ),
    );
    expect(apart).toBeGreaterThan(0);
  });

  test('of others, or of none, are told from ours, and what can not be read in ours counts as not there', () => {
    expect(factsOf({})).toBeUndefined();
    expect(factsOf({ 'app-id': 'wx', 'media-id': 'A', kind: 'image', 'received-at': 'never' })).toBeUndefined();
    const { metadata } = describeObject(testJob(), {}, ATTEMPT, ARCHIVED_AT);
    const spoilt = { ...metadata, attempts: 'many', deadline: 'x', 'message-id': '%', labels: '!', variant: 'other' };
    expect(Object.keys(factsOf(spoilt) ?? {})).not.toEqual(
      expect.arrayContaining(['attempts', 'deadline', 'messageId', 'labels', 'variant']),
    );
    expect(annotationsOf('nothing')).toEqual({});
    expect(annotationsOf({ messageId: 1, openId: null, labels: { a: 1, b: 'b' } })).toEqual({ labels: { b: 'b' } });
  });

  test('come back from a store as they were sent', async () => {
    await fc.assert(
      fc.asyncProperty(anyText, fc.constantFrom(...MEDIA_KINDS), anyBody, async (messageId, kind, body) => {
        const job = testJob({ kind, source: { messageId } });
        const { metadata } = describeObject(job, body, ATTEMPT, ARCHIVED_AT, 'ab'.repeat(32));
        const object = wholeObject(Buffer.from('x'), { metadata });
        expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
        expect(await bench.store.head(object.key, never)).toMatchObject({ ok: true, value: { metadata } });
      }),
      { numRuns: 30 },
    );
  });
});

test.each([
  { body: {}, contentType: 'application/octet-stream', extension: 'bin' },
  { body: { declaredType: 'audio/amr' }, contentType: 'audio/amr', extension: 'amr' },
  { body: { declaredType: 'application/x-new' }, contentType: 'application/x-new', extension: 'bin' },
  { body: { declaredType: 'image/jpeg', namedExtension: 'jpeg' }, contentType: 'image/jpeg', extension: 'jpg' },
  {
    body: {
      declaredType: 'audio/amr',
      namedExtension: 'amr',
      sniffed: { mime: 'audio/silk', extension: 'silk' },
    },
    contentType: 'audio/silk',
    extension: 'silk',
  },
])('$body is served as $contentType and named .$extension', ({ body, contentType, extension }) => {
  expect(contentTypeOf(body)).toBe(contentType);
  expect(extensionOf(body)).toBe(extension);
});
