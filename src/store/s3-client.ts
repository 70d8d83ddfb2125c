import { S3Client } from '@aws-sdk/client-s3';
import type { Secret } from '../secret.ts';
import { MINUTE, SECOND } from '../time.ts';

export interface StoreConfig {
  readonly bucket: string;
  /** Bodies up to this size are one PutObject; larger ones are multipart uploads of parts of this size. */
  readonly partSizeBytes: number;
  readonly forcePathStyle: boolean;
  /** AWS_ENDPOINT_URL_S3; absent for AWS itself. */
  readonly endpoint?: string;
  readonly region?: string;
  readonly timeouts?: S3Timeouts;
  /** In place of the AWS SDK's own chain, for embedded stores. */
  readonly credentials?: { readonly accessKeyId: string; readonly secretAccessKey: Secret };
}

/** How long the client waits, in milliseconds. */
export interface S3Timeouts {
  readonly connectMs: number;
  /** Without a byte in either direction. */
  readonly idleMs: number;
  /** From the first byte of a request to the response: a part, or an object of one part, on a slow line. */
  readonly responseMs: number;
}

export const DEFAULT_S3_TIMEOUTS: S3Timeouts = { connectMs: 5 * SECOND, idleMs: 30 * SECOND, responseMs: 2 * MINUTE };
/** Tries of one request by the SDK, for blips; longer outages are the retry schedule's. */
const MAX_TRIES = 3;

/**
 * Makes the S3 client. Credentials and profile come from the AWS SDK's own chain.
 *
 * Checksums beyond what an operation requires are off: the default CRC32 trailer of the SDK is refused or, worse,
 * stored as part of the object by several S3-compatible stores. The payload hash takes its place.
 *
 * @param maxSockets at least the number of writes at once, or they queue for sockets.
 * @see https://github.com/aws/aws-sdk-js-v3/issues/6810
 */
export function createS3Client(config: StoreConfig, maxSockets: number): S3Client {
  // The SDK demands a region of every store; those that are not AWS mostly ignore it.
  const region = config.region ?? (config.endpoint === undefined ? undefined : 'us-east-1');
  const { endpoint, credentials, timeouts = DEFAULT_S3_TIMEOUTS } = config;
  return new S3Client({
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(credentials === undefined
      ? {}
      : {
          credentials: { accessKeyId: credentials.accessKeyId, secretAccessKey: credentials.secretAccessKey.reveal() },
        }),
    forcePathStyle: config.forcePathStyle,
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
    maxAttempts: MAX_TRIES,
    requestHandler: {
      connectionTimeout: timeouts.connectMs,
      socketTimeout: timeouts.idleMs,
      requestTimeout: timeouts.responseMs,
      throwOnRequestTimeout: true,
      httpAgent: { maxSockets, keepAlive: true },
      httpsAgent: { maxSockets, keepAlive: true },
    },
  });
}
