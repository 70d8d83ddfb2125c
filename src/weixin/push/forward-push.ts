import { Agent, type Dispatcher } from 'undici';
import { textOf } from '../decoded-body.ts';
import { forwardUrlOf } from './forward-url.ts';

/** Of an answer: a reply to a message is a few KiB at most. */
const MAX_ANSWER_BYTES = 1024 * 1024;

/** A push as it came, to be sent on as it is. */
export interface ForwardedPush {
  /** The app whose handler it is for; a platform's own for its events. */
  readonly appId: string;
  /** As it came, without the question mark. */
  readonly query: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array;
}

/** What the handler answered; or that it did not, or not in a way that WeChat could be told. */
export type ForwardOutcome =
  | {
      readonly type: 'answered';
      readonly status: number;
      readonly headers: Readonly<Record<string, string>>;
      readonly body: Buffer;
    }
  | { readonly type: 'failed'; readonly detail: string };

/** The operator's own handler of messages. */
export interface PushHandler {
  /**
   * Posts a push to the handler and returns its answer, whatever its status; a redirect is one like any other.
   *
   * @throws the signal's reason when it aborts.
   */
  forward(push: ForwardedPush, signal: AbortSignal): Promise<ForwardOutcome>;
  close(): Promise<void>;
}

/** What is told of an answer, beside its status. */
const ANSWER_HEADERS = ['content-type', 'content-encoding'] as const;

/** @param template WEIXIN_FORWARD_URL. */
export function createPushHandler(template: string): PushHandler {
  // A socket for each push: an idle one may be closed already, and a push must not be sent twice to find out.
  const agent = new Agent({ allowH2: false, pipelining: 0 });

  async function forward(push: ForwardedPush, signal: AbortSignal): Promise<ForwardOutcome> {
    try {
      const response = await agent.request({
        ...forwardUrlOf(template, push.appId, push.query),
        method: 'POST',
        headers: { 'accept-encoding': 'identity', ...push.headers },
        body: push.body,
        signal,
      });
      return await readAnswer(response);
    } catch (error) {
      signal.throwIfAborted();
      return { type: 'failed', detail: nameOf(error) };
    }
  }

  return { forward, close: () => agent.destroy() };
}

async function readAnswer({ statusCode, headers, body }: Dispatcher.ResponseData): Promise<ForwardOutcome> {
  const chunks: Buffer[] = [];
  let sizeBytes = 0;
  // Ending the loop early destroys the body, and with it the connection.
  for await (const chunk of body as AsyncIterable<Buffer>) {
    sizeBytes += chunk.byteLength;
    if (sizeBytes > MAX_ANSWER_BYTES) return { type: 'failed', detail: `more than ${MAX_ANSWER_BYTES} bytes` };
    chunks.push(chunk);
  }
  const told = ANSWER_HEADERS.flatMap((name): [string, string][] => {
    const value = textOf(headers[name]);
    return value === undefined ? [] : [[name, value]];
  });
  return { type: 'answered', status: statusCode, headers: Object.fromEntries(told), body: Buffer.concat(chunks) };
}

/** The code of a fault; its message may quote the address, and with it a signature. */
function nameOf(error: unknown): string {
  if (!(error instanceof Error)) return 'unknown';
  return 'code' in error && typeof error.code === 'string' ? error.code : error.name;
}
