import {
  GetBucketLifecycleConfigurationCommand,
  GetBucketVersioningCommand,
  GetObjectLockConfigurationCommand,
  type LifecycleRule,
  type S3Client,
} from '@aws-sdk/client-s3';

/** What a bucket does by itself with what lies in it. */
export interface BucketRules {
  /** `unknown` where the store does not tell. */
  readonly versioning: 'on' | 'suspended' | 'off' | 'unknown';
  /** Absent where objects are not locked, or the store does not tell. */
  readonly lock?: { readonly mode: 'COMPLIANCE' | 'GOVERNANCE' | undefined; readonly days: number | undefined };
  /** `undefined` where the store does not tell. */
  readonly lifecycle: readonly LifecycleRule[] | undefined;
}

/** Whether versions are kept, and locked. */
export async function readProtection(
  client: S3Client,
  bucket: string,
  signal: AbortSignal,
): Promise<Omit<BucketRules, 'lifecycle'>> {
  const options = { abortSignal: signal };
  const place = { Bucket: bucket };
  const versioning = await client.send(new GetBucketVersioningCommand(place), options).then(
    ({ Status }) => (Status === 'Enabled' ? 'on' : Status === 'Suspended' ? 'suspended' : 'off'),
    () => 'unknown' as const,
  );
  // Where there is none, stores answer with an error.
  const lock = await client.send(new GetObjectLockConfigurationCommand(place), options).then(
    ({ ObjectLockConfiguration: found }) => {
      if (found?.ObjectLockEnabled !== 'Enabled') return undefined;
      const { Mode, Days, Years } = found.Rule?.DefaultRetention ?? {};
      return { mode: Mode, days: Days ?? (Years === undefined ? undefined : Years * 365) };
    },
    () => undefined,
  );
  signal.throwIfAborted();
  return { versioning, ...(lock === undefined ? {} : { lock }) };
}

export async function readBucketRules(client: S3Client, bucket: string, signal: AbortSignal): Promise<BucketRules> {
  const lifecycle = await client
    .send(new GetBucketLifecycleConfigurationCommand({ Bucket: bucket }), { abortSignal: signal })
    .then(
      ({ Rules = [] }) => Rules,
      (error: unknown) => (error instanceof Error && error.name === 'NoSuchLifecycleConfiguration' ? [] : undefined),
    );
  return { ...(await readProtection(client, bucket, signal)), lifecycle };
}
