import type { S3Client } from '@aws-sdk/client-s3';

/** Asks before each request is sent, its retries included, whether it may be. @param mayGo throws when it may not. */
export function addFence(client: S3Client, mayGo: () => void): void {
  client.middlewareStack.add(
    (next) => (args) => {
      mayGo();
      return next(args);
    },
    // After the signature: the last thing before the request goes out.
    { step: 'finalizeRequest', priority: 'low', name: 'addFence', override: true },
  );
}
