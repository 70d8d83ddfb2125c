import { readFile } from 'node:fs/promises';
import { Ajv2020 } from 'ajv/dist/2020.js';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { mediaJobSchema, parseMediaJob } from '../../src/media/media-job.ts';
import { mediaJobJsonSchema } from '../../src/media/media-job-schema.ts';
import { SCHEMA_FILE, schemaText } from '../schema/schema-text.ts';
import { APP_ID, testJob } from '../support/jobs.ts';

// A format is a note to the reader in 2020-12; the pattern beside it is what binds.
const schemaTakes = new Ajv2020({ formats: { 'date-time': true } }).compile(mediaJobJsonSchema());
const parserTakes = (input: unknown): boolean => parseMediaJob(input, Number.POSITIVE_INFINITY).ok;
/** As it comes out of another language. */
const asJson = (input: unknown): unknown => JSON.parse(JSON.stringify(input));

test('docs/media-job.schema.json is what `npm run schema` writes', async () => {
  expect(await readFile(SCHEMA_FILE, 'utf8')).toBe(schemaText());
});

test('each field is described', () => {
  const { properties } = mediaJobJsonSchema() as { properties: Record<string, { description?: string }> };
  expect(Object.keys(properties)).toEqual(Object.keys(mediaJobSchema.shape));
  for (const [name, { description }] of Object.entries(properties)) expect(description, name).toMatch(/\w/);
});

describe('the schema takes what the parser takes, and nothing else:', () => {
  const job = testJob();
  const manyLabels = (count: number): object =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`l${index}`, '']));

  test.each<[string, unknown, boolean]>([
    ['a whole job', { ...job, variant: 'hd-voice', source: { messageId: '1', openId: 'o' }, labels: { a: 'b' } }, true],
    ['the least', { v: 1, appId: APP_ID, mediaId: 'x', receivedAt: '2026-06-15T11:00:00Z' }, true],
    ['no object', [job], false],
    ['nothing', null, false],
    ['a version to come', { ...job, v: 2 }, false],
    ['a version as text', { ...job, v: '1' }, false],
    ['an unknown field', { ...job, media_id: 'x' }, false],
    ['the field of the workers', { ...job, ledger: {} }, false],
    ['a field of no name of ours', JSON.parse(JSON.stringify(job).replace('{', '{"__proto__":{},')), false],
    ['a null for what is not there', { ...job, kind: null }, false],
    ['a media_id of 256', { ...job, mediaId: 'a'.repeat(256) }, true],
    ['a media_id of 257', { ...job, mediaId: 'a'.repeat(257) }, false],
    ['a media_id with a line feed', { ...job, mediaId: 'a\n' }, false],
    ['a time in another zone', { ...job, receivedAt: '2026-06-15T11:00:00+00:00' }, false],
    ['a time without seconds', { ...job, receivedAt: '2026-06-15T11:00Z' }, false],
    ['a time in microseconds', { ...job, receivedAt: '2026-06-15T11:00:00.123456Z' }, true],
    ['a day that is none', { ...job, receivedAt: '2026-02-29T11:00:00Z' }, false],
    ['a leap day', { ...job, receivedAt: '2024-02-29T11:00:00Z' }, true],
    ['a Unix time', { ...job, receivedAt: 1_781_521_200 }, false],
    ['an empty source', { ...job, source: {} }, true],
    ['an empty openId', { ...job, source: { openId: '' } }, false],
    ['an openId of 128', { ...job, source: { openId: 'o'.repeat(128) } }, true],
    ['an openId of 128 beyond U+FFFF', { ...job, source: { openId: '😀'.repeat(128) } }, true],
    ['an openId of 129 beyond U+FFFF', { ...job, source: { openId: '😀'.repeat(129) } }, false],
    ['an openId of 129', { ...job, source: { openId: 'o'.repeat(129) } }, false],
    ['a message id as number', { ...job, source: { messageId: 1 } }, false],
    ['16 labels', { ...job, labels: manyLabels(16) }, true],
    ['17 labels', { ...job, labels: manyLabels(17) }, false],
    ['a label of 256', { ...job, labels: { a: 'x'.repeat(256) } }, true],
    ['a label of 257', { ...job, labels: { a: 'x'.repeat(257) } }, false],
    ['a label with an odd name', { ...job, labels: { 'a b': '' } }, false],
    ['a label without a name', { ...job, labels: { '': '' } }, false],
    ['a label of no name of ours', { ...job, labels: JSON.parse('{"__proto__":""}') }, false],
    ['a label that is a number', { ...job, labels: { a: 1 } }, false],
    ['labels as a list', { ...job, labels: [] }, false],
  ])('%s', (_what, input, taken) => {
    expect([schemaTakes(input), parserTakes(input)]).toEqual([taken, taken]);
  });

  const text = fc.string({
    unit: fc.constantFrom('a', 'Z', '9', '_', '-', '.', ':', ' ', '\n', '有', '😀'),
    maxLength: 6,
  });
  const name = fc.oneof(
    { weight: 49, arbitrary: fc.string({ unit: fc.constantFrom(...'aZ09_.-'), minLength: 1, maxLength: 65 }) },
    { weight: 1, arbitrary: fc.constant('__proto__') },
  );
  const value = fc.oneof(text, fc.jsonValue({ maxDepth: 2 }), fc.constantFrom('', 'x'.repeat(129), 'x'.repeat(257)));
  const mostly = (valid: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> =>
    fc.oneof({ weight: 19, arbitrary: valid }, { weight: 1, arbitrary: value });
  const jobs = fc.record(
    {
      v: mostly(fc.constant(1)),
      appId: mostly(fc.constant(APP_ID)),
      mediaId: mostly(fc.string({ unit: fc.constantFrom(...'aZ09_-'), minLength: 1, maxLength: 257 })),
      kind: mostly(fc.constantFrom('image', 'voice', 'video', 'thumb', 'file', 'gif')),
      receivedAt: mostly(
        fc.oneof(
          fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
          fc
            .tuple(fc.nat(9_999), fc.nat(13), fc.nat(32), fc.nat(24), fc.nat(60))
            .map(([year, ...rest]) => [String(year).padStart(4, '0'), ...rest.map((n) => String(n).padStart(2, '0'))])
            .map(([year, month, day, hour, minute]) => `${year}-${month}-${day}T${hour}:${minute}:00Z`),
        ),
      ),
      variant: mostly(fc.constant('hd-voice')),
      source: mostly(fc.record({ messageId: mostly(text), openId: mostly(text) }, { requiredKeys: [] })),
      labels: mostly(fc.dictionary(fc.oneof({ weight: 29, arbitrary: name }, text), mostly(text), { maxKeys: 18 })),
    },
    { requiredKeys: ['v', 'appId', 'mediaId', 'receivedAt'] },
  );
  const withMore = fc
    .tuple(jobs, fc.constantFrom('media_id', '__proto__', 'ledger'), value)
    .map(([job, name, more]) => {
      return JSON.parse(`{${JSON.stringify(name)}:${JSON.stringify(more)},${JSON.stringify(job).slice(1)}`) as unknown;
    });

  test('whatever comes', () => {
    const seen = { taken: 0, refused: 0 };
    const property = fc.property(fc.oneof({ weight: 18, arbitrary: jobs }, withMore, value), (input) => {
      const json = asJson(input);
      const taken = parserTakes(json);
      seen[taken ? 'taken' : 'refused'] += 1;
      expect(schemaTakes(json)).toBe(taken);
    });
    fc.assert(property, { numRuns: 4_000 });
    expect(Math.min(seen.taken, seen.refused)).toBeGreaterThan(200);
  });
});

test('a time in the future is what the schema can not refuse, and its description does', () => {
  const { description } = mediaJobJsonSchema() as { description: string };
  const job = testJob({ receivedAt: '2999-01-01T00:00:00Z' });
  expect([schemaTakes(job), parseMediaJob(job, Date.now()).ok]).toEqual([true, false]);
  expect(description).toContain('ten minutes in the future');
});
