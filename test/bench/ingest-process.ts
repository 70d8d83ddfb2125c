import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Pool } from 'undici';
import {
  type PushMode,
  type PushSender,
  type SimulatedFields,
  type SimulatedPush,
  simulatedMessage,
  simulatedPush,
} from '../../src/demo/weixin/message-push.ts';
import { startWorkerProcess } from '../../src/demo/worker-process.ts';

/** A real ingest process of one account, and the WeChat that pushes to it. It is stopped in the end. */
export interface IngestProcess extends AsyncDisposable {
  /** Makes the push of a message: written in XML, encrypted and signed. */
  pushOf(message: SimulatedFields): SimulatedPush;
  /** Sends it once. Resolves with `success`, the status of another answer, or the code of the error where there is none. */
  send(push: SimulatedPush): Promise<'success' | number | string>;
}

export interface IngestOptions {
  readonly redisUrl: string;
  /** Takes the file of its account. */
  readonly directory: string;
  readonly appId: string;
  /** Default: safe. */
  readonly mode?: PushMode;
  /** The most connections from WeChat at once. */
  readonly connections: number;
}

const PUSH_TOKEN = 'benchmark';
const AES_KEY = 'abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG';

/** Starts an ingest process and resolves when it listens. */
export async function startIngest(options: IngestOptions): Promise<IngestProcess> {
  const { redisUrl, directory, appId, mode = 'safe', connections } = options;
  await using parts = new AsyncDisposableStack();
  const accountsPath = join(directory, 'pushed-account.json');
  const push = { token: { env: 'PUSH_TOKEN' }, encodingAesKey: { env: 'PUSH_KEY' } };
  const credential = { type: 'stable_token', secret: { env: 'PUSH_TOKEN' } };
  await writeFile(accountsPath, JSON.stringify({ accounts: [{ appId, credential, push }] }));
  const ingest = startWorkerProcess(
    { REDIS_URL: redisUrl, WEIXIN_ACCOUNTS_FILE: accountsPath, PUSH_TOKEN, PUSH_KEY: AES_KEY, HTTP_PORT: '0' },
    'pipe',
    'ingest',
  );
  parts.defer(() => ingest.stop());
  await ingest.said('"msg":"ingest started"');
  const port = /"httpPort":(\d+)/.exec(ingest.log())?.[1];
  const pool = new Pool(`http://127.0.0.1:${port}`, { connections });
  parts.defer(() => pool.destroy());
  const sender: PushSender = { token: PUSH_TOKEN, encodingAesKey: AES_KEY, appId, mode, format: 'xml' };
  const moved = parts.move();
  return {
    pushOf: (message) => simulatedPush(message, sender, Date.now()),
    send: async ({ query, headers, body }) => {
      const path = `/weixin/${appId}?${new URLSearchParams(query)}`;
      try {
        const answer = await pool.request({ path, method: 'POST', headers, body });
        return (await answer.body.text()) === 'success' ? 'success' : answer.statusCode;
      } catch (error) {
        const { code, name } = error as NodeJS.ErrnoException;
        return code ?? name;
      }
    },
    [Symbol.asyncDispose]: () => moved.disposeAsync(),
  };
}

/** A message with one picture, as WeChat pushes it. */
export function pictureMessage(mediaId: string): SimulatedFields {
  return simulatedMessage('image', { PicUrl: 'http://mmbiz.qpic.cn/0', MediaId: mediaId }, Date.now());
}
