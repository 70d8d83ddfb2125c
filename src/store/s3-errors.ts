import type { S3ServiceException } from '@aws-sdk/client-s3';
import { type Failure, type FailureCode, failure } from '../failure.ts';

/** What the S3 error codes that we can meet mean to us. @see https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html */
const BY_ERROR_CODE = {
  NoSuchBucket: 'store-bucket-missing',
  AccessDenied: 'store-denied',
  AllAccessDisabled: 'store-denied',
  AccountProblem: 'store-denied',
  InvalidAccessKeyId: 'store-denied',
  SignatureDoesNotMatch: 'store-denied',
  ExpiredToken: 'store-denied',
  InvalidToken: 'store-denied',
  RequestTimeTooSkewed: 'store-denied',
  // The SDK found no credentials at all.
  CredentialsProviderError: 'store-denied',
  SlowDown: 'store-busy',
  ServiceUnavailable: 'store-busy',
  InternalError: 'store-busy',
  OperationAborted: 'store-busy',
  RequestTimeout: 'store-busy',
  ConditionalRequestConflict: 'store-busy',
  // A multipart upload that another worker or a lifecycle rule has aborted: start anew.
  NoSuchUpload: 'store-busy',
  BadDigest: 'store-corrupted',
  InvalidDigest: 'store-corrupted',
  // Ceph and AWS name the same thing so.
  XAmzContentSHA256Mismatch: 'store-corrupted',
  PreconditionFailed: 'object-conflict',
} as const satisfies Record<string, FailureCode>;

/**
 * What is said of a bucket in another region, and where the right one is told then. Both have other causes too: without a
 * region they are told as they come, and stores name it in a header of answers to whatever (a key id that is none).
 *
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
 */
const ELSEWHERE: Readonly<Record<string, 'body' | 'anywhere'>> = {
  PermanentRedirect: 'anywhere',
  IllegalLocationConstraintException: 'anywhere',
  AuthorizationHeaderMalformed: 'body',
};
/** What a store names goes to the log, so it must look like a region. */
const REGION = /^[\w.-]{1,64}$/;

/** Errors of Node's sockets and of the SDK's request handler: no answer came. */
const NO_ANSWER =
  /^(ECONN\w+|ETIMEDOUT|EPIPE|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|EADDRNOTAVAIL|EMFILE|ENFILE|TimeoutError|ERR_TLS\w*|CERT_\w+|\w+_CERT\w*)$/;

/** Returns what an error thrown by the S3 client means. Never repeats its message, which may quote the request. */
export function classifyStoreError(error: unknown): Failure {
  if (!(error instanceof Error)) return failure('unclassified', { detail: typeof error });
  const httpStatus = httpStatusOf(error);
  const names = namesOf(error);
  for (const name of names) {
    const code = Object.hasOwn(BY_ERROR_CODE, name) ? BY_ERROR_CODE[name as keyof typeof BY_ERROR_CODE] : undefined;
    if (code !== undefined) return failure(code, { detail: name, httpStatus });
  }
  // An answer to a HEAD has no name.
  const detail = httpStatus === 301 ? 'PermanentRedirect' : names[0];
  const region = regionOf(error, detail);
  if (region !== undefined) {
    return failure('store-region-wrong', { detail: `${detail}: the bucket is in ${region}`, httpStatus });
  }
  if (names.some((name) => NO_ANSWER.test(name))) return failure('store-unreachable', { detail });
  return failure(byStatus(httpStatus), { detail, httpStatus });
}

/** The status of the answer behind an error. An answer that is not XML, as gateways give, is no `S3ServiceException`. */
export function httpStatusOf(error: unknown): number | undefined {
  return error instanceof Error ? (error as Partial<S3ServiceException>).$metadata?.httpStatusCode : undefined;
}

/** The region of a bucket that lies elsewhere, where the answer behind an error tells it. */
function regionOf(error: Partial<S3ServiceException> & { readonly Region?: unknown }, name = ''): string | undefined {
  const where = Object.hasOwn(ELSEWHERE, name) ? ELSEWHERE[name] : undefined;
  if (where === undefined) return undefined;
  const header = where === 'anywhere' ? error.$response?.headers['x-amz-bucket-region'] : undefined;
  const region: unknown = header ?? error.Region;
  return typeof region === 'string' && REGION.test(region) ? region : undefined;
}

function byStatus(status: number | undefined): FailureCode {
  if (status === undefined || status < 300) return 'unclassified';
  if (status === 412) return 'object-conflict';
  if (status === 401 || status === 403) return 'store-denied';
  if (status === 501) return 'store-refused';
  if (status === 408 || status === 429 || status >= 500) return 'store-busy';
  return 'store-refused';
}

/** The names under which an error goes: the S3 code or error class, then Node's code; the same of its causes. */
function namesOf(error: Error): string[] {
  const code = 'code' in error && typeof error.code === 'string' ? [error.code] : [];
  const cause = error.cause instanceof Error ? namesOf(error.cause) : [];
  return [...code, error.name, ...cause];
}

/** True when the request may have been carried out although no good answer came. */
export function leavesOutcomeOpen(reason: Failure): boolean {
  return reason.code === 'store-unreachable' || reason.code === 'store-busy' || reason.code === 'unclassified';
}

/** True for the answer to a conditional write that found an object. */
export function isPreconditionFailed(reason: Failure): boolean {
  return reason.code === 'object-conflict';
}

/** True when the store does not know a conditional write at all and says so, instead of ignoring it. */
export function isConditionUnsupported(error: unknown): boolean {
  return error instanceof Error && (error.name === 'NotImplemented' || httpStatusOf(error) === 501);
}

/** True when the store does not have the operation at all. Not being allowed it is another matter. */
export function isOperationUnsupported(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const status = httpStatusOf(error);
  return error.name === 'NotImplemented' || error.name === 'MethodNotAllowed' || status === 501 || status === 405;
}
