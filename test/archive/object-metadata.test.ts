import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { contentTypeOf, extensionOf, metadataOf } from '../../src/archive/object-metadata.ts';
import { MEDIA_KINDS } from '../../src/media/kind.ts';
import { mimeOf } from '../../src/media/media-type.ts';
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

describe('the metadata of an object', () => {
  test('says which media it is, when it was received and archived, and what it was declared as', () => {
    const job = testJob({ mediaId: 'A', kind: 'voice', source: { messageId: '6054768590064713728', openId: 'oABC' } });
    expect(metadataOf(job, { declaredType: 'audio/amr' }, ARCHIVED_AT, 'ab'.repeat(32))).toEqual({
      'app-id': 'wx0123456789abcdef',
      'media-id': 'A',
      kind: 'voice',
      'received-at': job.receivedAt,
      'archived-at': ARCHIVED_AT,
      sha256: 'ab'.repeat(32),
      'source-type': 'audio/amr',
      'message-id': '6054768590064713728',
      schema: '1',
    });
  });

  test('leaves out what is not known', () => {
    const { kind: _, ...job } = testJob();
    expect(Object.keys(metadataOf(job, {}, ARCHIVED_AT)).sort()).toEqual(
      ['app-id', 'media-id', 'kind', 'received-at', 'archived-at', 'schema'].sort(),
    );
    expect(metadataOf(job, {}, ARCHIVED_AT)).toMatchObject({ kind: 'unknown' });
  });

  test('is short, printable ASCII without an openId, whatever the job says', () => {
    fc.assert(
      fc.property(
        anyText,
        anyText,
        fc.string({ unit: fc.constantFrom('x'), maxLength: 256, minLength: 1 }),
        anyBody,
        (messageId, text, mediaId, body) => {
          const openId = `open-id-${text}`;
          const job = testJob({ mediaId, source: { messageId, openId }, labels: { note: openId } });
          const metadata = metadataOf(job, body, ARCHIVED_AT, 'ab'.repeat(32));
          const whole = Object.entries(metadata).flat().join('');
          expect(whole).toMatch(/^[\x21-\x7e]*$/);
          expect(whole.length).toBeLessThanOrEqual(MAX_METADATA_BYTES);
          expect(whole).not.toContain('open-id-');
        },
      ),
    );
  });

  test('comes back from a store as it was sent, and the message id can be read from it', async () => {
    await fc.assert(
      fc.asyncProperty(anyText, fc.constantFrom(...MEDIA_KINDS), anyBody, async (messageId, kind, body) => {
        const metadata = metadataOf(testJob({ kind, source: { messageId } }), body, ARCHIVED_AT, 'ab'.repeat(32));
        const object = wholeObject(Buffer.from('x'), { metadata });
        expect(await bench.store.write(object, never)).toMatchObject({ ok: true });
        expect(await bench.store.head(object.key, never)).toMatchObject({ ok: true, value: { metadata } });
        expect(decodeURIComponent(metadata['message-id'] ?? '')).toBe(messageId.toWellFormed());
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
