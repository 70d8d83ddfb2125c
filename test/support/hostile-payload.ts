import fc from 'fast-check';
import { FAILURES, type FailureCode } from '../../src/failure.ts';
import { DAY, iso, SECOND } from '../../src/time.ts';
import { testJob } from './jobs.ts';

const codes = Object.keys(FAILURES) as FailureCode[];

const validJob = fc.constant(undefined).map(() => testJob({ receivedAt: iso(Date.now() - SECOND) }));

const oddText = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: 'grapheme' }),
  fc.constantFrom('', '\u0000', '\ud800', '__proto__', 'constructor', '../..', '\r\n', 'x'.repeat(100_000)),
);

const odd: fc.Arbitrary<unknown> = fc.oneof(
  oddText,
  fc.jsonValue(),
  fc.constantFrom(null, true, 0, -1, 1e308, [], {}, [[]], { toJSON: 1 }, { length: 1e9 }),
);

const times = fc.oneof(
  fc.date({ noInvalidDate: true }).map((date) => date.toISOString()),
  fc.constantFrom('0000-01-01T00:00:00Z', '9999-12-31T23:59:59.999Z', '2026-02-30T00:00:00Z', 'now', ''),
  oddText,
);

const records = fc.record(
  {
    at: times,
    durationMs: fc.double({ noNaN: true, noDefaultInfinity: true }),
    failure: fc.constantFrom(...codes),
    errcode: fc.oneof(fc.integer(), odd),
    errmsg: oddText,
    detail: fc.oneof(oddText, odd),
  },
  { requiredKeys: ['at', 'durationMs', 'failure'] },
);

/** Of letters that are older than a month the index knows nothing. */
const recent = fc.nat(20 * DAY).map((ageMs) => iso(Date.now() - ageMs));
const isNoDay = (text: string): boolean => !/^\d{4}-\d\d-\d\dT/.test(text);

/** A history that no worker has written. */
const forgedLedger = fc.record(
  {
    attempts: fc.oneof(fc.array(records, { maxLength: 5 }), fc.array(records, { minLength: 300, maxLength: 300 }), odd),
    verdict: fc.oneof(
      fc.record(
        { reason: fc.constantFrom(...codes), diedAt: fc.oneof(recent, times.filter(isNoDay)), detail: oddText },
        { requiredKeys: ['reason', 'diedAt'] },
      ),
      odd,
    ),
    replayed: fc.oneof(fc.boolean(), odd),
  },
  { requiredKeys: [] },
);

const FIELDS = ['v', 'appId', 'mediaId', 'kind', 'receivedAt', 'variant', 'source', 'labels', 'ledger'] as const;

const nested = fc
  .tuple(
    fc.constantFrom<[string, string][]>(['[', ']'], ['{"a":', '}'], ['[{"openId":', '}]']),
    fc.constantFrom(10, 1_000, 2_000, 10_000, 100_000),
    fc.boolean(),
  )
  .map(([[open, close], depth, whole]) => `${open.repeat(depth)}0${whole ? close.repeat(depth) : ''}`);

const payloads: fc.Arbitrary<Buffer> = fc.oneof(
  fc.json().map((text) => Buffer.from(text)),
  fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
  // A job with a field of another kind.
  fc
    .tuple(validJob, fc.constantFrom(...FIELDS), odd)
    .map(([job, field, value]) => Buffer.from(JSON.stringify({ ...job, [field]: value }))),
  fc.tuple(validJob, forgedLedger).map(([job, ledger]) => Buffer.from(JSON.stringify({ ...job, ledger }))),
  // Cut, or with a bit turned.
  fc.tuple(validJob, fc.nat(200)).map(([job, length]) => Buffer.from(JSON.stringify(job)).subarray(0, length)),
  fc.tuple(validJob, fc.nat(100), fc.nat(7)).map(([job, place, bit]) => {
    const bytes = Buffer.from(JSON.stringify(job));
    bytes[place] = (bytes[place] ?? 0) ^ (1 << bit);
    return bytes;
  }),
  // Bytes that are no UTF-8 in the middle of a text.
  validJob.map((job) =>
    Buffer.from(JSON.stringify({ ...job, source: { messageId: '\u00ff' } }).replace('\u00ff', 'ÿþ'), 'latin1'),
  ),
  fc
    .tuple(validJob, fc.constantFrom('__proto__', 'constructor', 'prototype', 'toString', 'then', 'ledger'), nested)
    .map(([job, name, value]) => Buffer.from(`{"${name}":${value},${JSON.stringify(job).slice(1)}`)),
  fc
    .tuple(validJob, fc.constantFrom('{"v":1}', '{"mediaId":"x"}', '[]', 'null'))
    .map(([job, value]) => Buffer.from(`{"__proto__":${value},${JSON.stringify(job).slice(1)}`)),
  nested.map((text) => Buffer.from(text)),
  fc.constantFrom(
    Buffer.from(JSON.stringify('x'.repeat(2_000_000))),
    Buffer.from(`{"v":${'9'.repeat(100_000)}}`),
    Buffer.from('\uFEFF{}'),
    Buffer.alloc(0),
    Buffer.alloc(1_000),
  ),
);

/** Values of the hash field `data`: whatever a program or a hand can put there. As latin1, so that one can be read. */
export const hostilePayloads: fc.Arbitrary<string> = payloads.map((bytes) => bytes.toString('latin1'));
