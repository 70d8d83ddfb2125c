import { Readable } from 'node:stream';
import type { PutObjectCommand } from '@aws-sdk/client-s3';

/** How a request ended that was not sent by the SDK. */
export type FirstTry =
  | {
      readonly type: 'answer';
      readonly status: number;
      readonly headers: Readonly<Record<string, string>>;
      readonly body: Buffer;
    }
  /** No answer came, or not whole. */
  | { readonly type: 'fault'; readonly error: Error };

/**
 * Makes the SDK take a request that was sent already for its own first try. It reads the answer, or meets the fault, and
 * goes on from there; what it sends is the second try.
 */
export function replayFirstTry(command: PutObjectCommand, tried: FirstTry): PutObjectCommand {
  let isTold = false;
  command.middlewareStack.add(
    (next) => async (args) => {
      if (isTold) return next(args);
      isTold = true;
      if (tried.type === 'fault') throw tried.error;
      const { status, headers, body } = tried;
      const response = { statusCode: status, headers: { ...headers }, body: Readable.from([body]) };
      return { response, output: undefined as never };
    },
    // Nearest to the socket: in its place.
    { step: 'deserialize', priority: 'low', name: 'replayFirstTry' },
  );
  return command;
}
