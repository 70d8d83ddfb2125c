import { describe, expect, test } from 'vitest';
import { VARIABLES } from '../src/config-variables.ts';
import { FAILURES, type FailureCode, FailureError, fail, failure, succeed } from '../src/failure.ts';

const rows = Object.entries(FAILURES);

describe.each(rows)('%s', (code, { action, hint }) => {
  test('is a word of lower-case letters and dashes', () => {
    expect(code).toMatch(/^[a-z]+(-[a-z]+)*$/);
  });

  test('has one of the three actions', () => {
    expect(['retry', 'wait', 'dead']).toContain(action);
  });

  test('has a hint of whole sentences that fits a table', () => {
    expect(hint).toMatch(/^\S.*\.$/);
    expect(hint).not.toMatch(/[|\n]/);
  });

  test('has a hint that names only variables that are read', () => {
    const named = hint.match(/\b[A-Z]+(_[A-Z0-9]+)+\b/g) ?? [];
    expect(named.filter((name) => !(name in VARIABLES) && !name.startsWith('AWS_'))).toEqual([]);
  });
});

test.each<[FailureCode, string]>([
  // What nobody has classified may pass: it is never given up at once, and never a success.
  ['unclassified', 'retry'],
  ['worker-lost', 'retry'],
  // WeChat may be wrong about a token, never about a quota: nothing is used up by waiting.
  ['token-rejected', 'retry'],
  ['quota-exhausted', 'wait'],
  ['token-quota-exhausted', 'wait'],
  ['ip-not-allowed', 'wait'],
  // A store that is full, away or misconfigured never costs a media.
  ['store-bucket-missing', 'retry'],
  ['store-denied', 'retry'],
  ['store-region-wrong', 'retry'],
  ['store-unreachable', 'retry'],
  ['invalid-media-id', 'dead'],
  ['media-expired', 'dead'],
  ['object-conflict', 'dead'],
  ['job-invalid', 'dead'],
])('%s ends in %s', (code, action) => {
  expect(FAILURES[code].action).toBe(action);
});

test('a failure holds the facts that are known and no others', () => {
  expect(failure('weixin-busy')).toEqual({ code: 'weixin-busy' });
  const known = failure('weixin-busy', { errcode: -1, errmsg: undefined, httpStatus: 200, detail: '' });
  expect(known).toStrictEqual({ code: 'weixin-busy', errcode: -1, httpStatus: 200, detail: '' });
});

test('a result is a value or the failure in its place', () => {
  expect(succeed(7)).toEqual({ ok: true, value: 7 });
  expect(fail('body-empty', { detail: 'x' })).toEqual({ ok: false, failure: { code: 'body-empty', detail: 'x' } });
});

test('a failure goes through a stream as an error that says its code and nothing else', () => {
  const error = new FailureError(failure('body-truncated', { detail: 'a detail' }));
  expect(error).toMatchObject({ name: 'FailureError', message: 'body-truncated' });
  expect(error.failure).toEqual({ code: 'body-truncated', detail: 'a detail' });
});
