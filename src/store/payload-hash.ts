import type { PutObjectCommand } from '@aws-sdk/client-s3';

/**
 * Signs a write with a payload hash that is known already: the SDK does not hash the body a second time, and the store
 * checks every byte against the hash, since the signature covers it.
 *
 * @param sha256 lower-case hexadecimal.
 * @see https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
 */
export function withPayloadHash(command: PutObjectCommand, sha256: string): PutObjectCommand {
  command.middlewareStack.add(
    (next) => (args) => {
      (args.request as { headers: Record<string, string> }).headers['x-amz-content-sha256'] = sha256;
      return next(args);
    },
    { step: 'build', name: 'payloadHash' },
  );
  return command;
}
