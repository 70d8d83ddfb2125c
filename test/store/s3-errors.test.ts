import { NoSuchBucket, NotFound, S3ServiceException } from '@aws-sdk/client-s3';
import { describe, expect, test } from 'vitest';
import { FAILURES, type FailureCode } from '../../src/failure.ts';
import {
  classifyStoreError,
  isConditionUnsupported,
  isPreconditionFailed,
  leavesOutcomeOpen,
} from '../../src/store/s3-errors.ts';

function s3Error(name: string, httpStatusCode: number): S3ServiceException {
  return new S3ServiceException({ name, $fault: 'client', message: 'a text', $metadata: { httpStatusCode } });
}

function socketError(code: string): Error {
  return Object.assign(new Error('a text'), { code });
}

const S3_CODES: readonly (readonly [string, number, FailureCode])[] = [
  ['NoSuchBucket', 404, 'store-bucket-missing'],
  ['AccessDenied', 403, 'store-denied'],
  ['AllAccessDisabled', 403, 'store-denied'],
  ['AccountProblem', 403, 'store-denied'],
  ['InvalidAccessKeyId', 403, 'store-denied'],
  ['SignatureDoesNotMatch', 403, 'store-denied'],
  ['ExpiredToken', 400, 'store-denied'],
  ['InvalidToken', 400, 'store-denied'],
  ['RequestTimeTooSkewed', 403, 'store-denied'],
  ['SlowDown', 503, 'store-busy'],
  ['ServiceUnavailable', 503, 'store-busy'],
  ['InternalError', 500, 'store-busy'],
  ['OperationAborted', 409, 'store-busy'],
  ['RequestTimeout', 400, 'store-busy'],
  ['ConditionalRequestConflict', 409, 'store-busy'],
  ['NoSuchUpload', 404, 'store-busy'],
  ['BadDigest', 400, 'store-corrupted'],
  ['InvalidDigest', 400, 'store-corrupted'],
  ['XAmzContentSHA256Mismatch', 400, 'store-corrupted'],
  ['PreconditionFailed', 412, 'object-conflict'],
  ['EntityTooLarge', 400, 'store-refused'],
  ['QuotaExceeded', 403, 'store-denied'],
  ['NotImplemented', 501, 'store-refused'],
  ['PermanentRedirect', 301, 'store-refused'],
];

describe('an answer of the store', () => {
  test.each(S3_CODES)('%s (%i) is %s', (name, status, code) => {
    expect(classifyStoreError(s3Error(name, status))).toEqual({ code, detail: name, httpStatus: status });
  });

  test.each<[number, FailureCode]>([
    [400, 'store-refused'],
    [401, 'store-denied'],
    [403, 'store-denied'],
    [404, 'store-refused'],
    [408, 'store-busy'],
    [412, 'object-conflict'],
    [413, 'store-refused'],
    [429, 'store-busy'],
    [500, 'store-busy'],
    [501, 'store-refused'],
    [502, 'store-busy'],
    [503, 'store-busy'],
    [504, 'store-busy'],
    [507, 'store-busy'],
  ])('with status %i and a code that nobody knows is %s', (status, code) => {
    expect(classifyStoreError(s3Error('UnknownError', status))).toMatchObject({ code, httpStatus: status });
  });

  test.each<[number, FailureCode]>([
    [502, 'store-busy'],
    [503, 'store-busy'],
    [403, 'store-denied'],
    [200, 'unclassified'],
  ])('with status %i that is no XML, as gateways give it, is %s', (httpStatusCode, code) => {
    const unparsed = Object.assign(new Error('mismatched tags'), { $metadata: { httpStatusCode } });
    expect(classifyStoreError(unparsed)).toMatchObject({ code });
  });

  test('is told by the names that the SDK gives its classes', () => {
    const $metadata = { httpStatusCode: 404 };
    expect(classifyStoreError(new NoSuchBucket({ message: '', $metadata })).code).toBe('store-bucket-missing');
    expect(classifyStoreError(new NotFound({ message: '', $metadata })).code).toBe('store-refused');
  });
});

describe('a bucket in another region', () => {
  function elsewhere(name: string, httpStatusCode: number, header?: string, inBody?: string): S3ServiceException {
    const headers = header === undefined ? {} : { 'x-amz-bucket-region': header };
    const error = Object.assign(s3Error(name, httpStatusCode), { $response: { statusCode: httpStatusCode, headers } });
    return inBody === undefined ? error : Object.assign(error, { Region: inBody });
  }

  test.each<[string, number, string | undefined, string?]>([
    ['PermanentRedirect', 301, 'eu-west-1'],
    ['IllegalLocationConstraintException', 400, 'eu-west-1'],
    ['PermanentRedirect', 301, undefined, 'eu-west-1'],
    ['AuthorizationHeaderMalformed', 400, undefined, 'eu-west-1'],
    // A HEAD, whose answer has no body.
    ['UnknownError', 301, 'eu-west-1'],
  ])('is told by %s (%i), with the region', (name, status, header, inBody) => {
    expect(classifyStoreError(elsewhere(name, status, header, inBody))).toEqual({
      code: 'store-region-wrong',
      detail: `${name === 'UnknownError' ? 'PermanentRedirect' : name}: the bucket is in eu-west-1`,
      httpStatus: status,
    });
  });

  test.each<[string, number, string | undefined, FailureCode]>([
    ['AuthorizationHeaderMalformed', 400, undefined, 'store-refused'],
    // In a header it may be the one that was asked for, and the key id be what is malformed.
    ['AuthorizationHeaderMalformed', 400, 'eu-west-1', 'store-refused'],
    ['PermanentRedirect', 301, '<Signature=00ff>', 'store-refused'],
    // Of a bucket that is new.
    ['TemporaryRedirect', 307, 'eu-west-1', 'store-refused'],
    ['PermanentRedirect', 301, undefined, 'store-refused'],
    // Stores name the region in other answers too.
    ['AccessDenied', 403, 'eu-west-1', 'store-denied'],
    ['EntityTooLarge', 400, 'eu-west-1', 'store-refused'],
  ])('is not told by %s (%i) with region %s', (name, status, header, code) => {
    expect(classifyStoreError(elsewhere(name, status, header))).toEqual({ code, detail: name, httpStatus: status });
  });
});

describe('no answer', () => {
  test.each([
    'ECONNRESET',
    'ECONNREFUSED',
    'ECONNABORTED',
    'ETIMEDOUT',
    'EPIPE',
    'ENOTFOUND',
    'EAI_AGAIN',
    'EHOSTUNREACH',
    'ENETUNREACH',
    'EADDRNOTAVAIL',
    'EMFILE',
    'ERR_TLS_CERT_ALTNAME_INVALID',
    'CERT_HAS_EXPIRED',
    'DEPTH_ZERO_SELF_SIGNED_CERT',
  ])('for %s is store-unreachable, also as the cause of another error', (code) => {
    const expected = { code: 'store-unreachable' };
    expect(classifyStoreError(socketError(code))).toMatchObject({ ...expected, detail: code });
    expect(classifyStoreError(new Error('outer', { cause: socketError(code) }))).toMatchObject(expected);
  });

  test('within the time of the SDK is store-unreachable', () => {
    const timeout = Object.assign(new Error('a text'), { name: 'TimeoutError' });
    expect(classifyStoreError(timeout)).toEqual({ code: 'store-unreachable', detail: 'TimeoutError' });
  });

  test('because nobody gave credentials is store-denied', () => {
    const error = Object.assign(new Error('a text'), { name: 'CredentialsProviderError' });
    expect(classifyStoreError(error).code).toBe('store-denied');
  });
});

describe('what is no error of a store', () => {
  test.each([undefined, null, 'text', 42, {}, new Error('a text'), new TypeError('a text'), { name: 'SlowDown' }])(
    '%s is unclassified',
    (error) => {
      expect(classifyStoreError(error).code).toBe('unclassified');
    },
  );

  test.each(['constructor', 'toString', '__proto__', 'hasOwnProperty'])('a code %s finds no row', (name) => {
    expect(classifyStoreError(s3Error(name, 400)).code).toBe('store-refused');
  });
});

test('a failure never repeats the text of an error', () => {
  const text = 'AWS4-HMAC-SHA256 Credential=AKIA/20260615, Signature=00ff';
  for (const name of [...S3_CODES.map(([code]) => code), 'Unheard']) {
    const error = new S3ServiceException({ name, $fault: 'client', message: text, $metadata: { httpStatusCode: 400 } });
    expect(JSON.stringify(classifyStoreError(error))).not.toContain('00ff');
  }
});

test.each(Object.keys(FAILURES).filter((code) => code.startsWith('store-') || code === 'unclassified'))(
  '%s keeps the media alive',
  (code) => {
    expect(FAILURES[code as FailureCode].action).toBe('retry');
  },
);

test.each<[FailureCode, boolean]>([
  ['store-unreachable', true],
  ['store-busy', true],
  ['unclassified', true],
  ['store-denied', false],
  ['store-region-wrong', false],
  ['store-bucket-missing', false],
  ['store-corrupted', false],
  ['store-refused', false],
  ['object-conflict', false],
])('%s leaves it open whether the write was done: %s', (code, open) => {
  expect(leavesOutcomeOpen({ code })).toBe(open);
  expect(isPreconditionFailed({ code })).toBe(code === 'object-conflict');
});

test.each<[unknown, boolean]>([
  [s3Error('NotImplemented', 501), true],
  [s3Error('NotImplemented', 400), true],
  [s3Error('UnknownError', 501), true],
  [s3Error('PreconditionFailed', 412), false],
  [s3Error('InvalidRequest', 400), false],
  [new Error('NotImplemented'), false],
  [undefined, false],
])('%s says that the store has no conditional writes: %s', (error, says) => {
  expect(isConditionUnsupported(error)).toBe(says);
});
