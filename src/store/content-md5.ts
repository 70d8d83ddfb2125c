import { createHash } from 'node:crypto';
import type { S3Client } from '@aws-sdk/client-s3';

/** Writes whose body a store must check. */
const CHECKED_COMMANDS = new Set(['PutObjectCommand', 'UploadPartCommand']);

/**
 * Adds `Content-MD5` to every write, for stores that don't check the payload hash of the signature.
 *
 * Costs a second pass over the bytes (about 1.3 ms a MiB), so it is added only where the probe found it needed.
 */
export function addContentMd5(client: S3Client): void {
  client.middlewareStack.add(
    (next, context) => (args) => {
      const { request } = args as { request?: { body?: unknown; headers: Record<string, string> } };
      if (request?.body instanceof Uint8Array && CHECKED_COMMANDS.has(context.commandName ?? '')) {
        request.headers['content-md5'] = createHash('md5').update(request.body).digest('base64');
      }
      return next(args);
    },
    { step: 'build', name: 'addContentMd5', override: true },
  );
}
