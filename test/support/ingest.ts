import { pino } from 'pino';
import { loadConfig } from '../../src/config.ts';
import type { HttpServerOptions } from '../../src/ingest/http-server.ts';
import { runIngest } from '../../workers/ingest.ts';
import { eventually } from './eventually.ts';
import { APP_ID, APP_SECRET } from './jobs.ts';

export const TOKEN = 'a-token-that-must-not-leak';
export const READ_TOKEN = 'a-token-that-may-only-read';
export const INGEST_TOKEN = 'a-token-that-may-only-bring';
export const TOKENS = `${TOKEN},read:${READ_TOKEN},ingest:${INGEST_TOKEN}`;

export interface TestIngest extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Everything it has logged, from `trace` on. */
  log(): string;
  /** Asks with the token that may do everything, unless another header is given. */
  ask(path: string, init?: RequestInit): Promise<Response>;
  /** Sends JSON. */
  post(path: string, body: unknown, init?: RequestInit): Promise<Response>;
  /** Waits until it takes media. */
  ready(): Promise<void>;
  /** Stops it as SIGTERM does. */
  stop(): Promise<void>;
}

/** Runs the ingest process inside this one. */
export async function openIngest(
  environment: Readonly<Record<string, string>>,
  more: Pick<HttpServerOptions, 'plugins' | 'limits'> = {},
): Promise<TestIngest> {
  const config = loadConfig(
    { HTTP_PORT: '0', WEIXIN_APP_ID: APP_ID, WEIXIN_APP_SECRET: APP_SECRET, API_TOKENS: TOKENS, ...environment },
    ['accounts', 'guard'],
  );
  let log = '';
  const write = (line: string): void => {
    log += line;
  };
  const logger = pino({ level: 'trace' }, { write });
  const controller = new AbortController();
  let ended = false;
  const running = runIngest(config, logger, controller.signal, more).finally(() => {
    ended = true;
  });
  const port = await Promise.race([
    running.then(() => Promise.reject(new Error(`it has ended:\n${log}`))),
    eventually(() => {
      const [, found] = /"httpPort":(\d+)/.exec(log) ?? [];
      return found === undefined ? undefined : Number(found);
    }),
  ]);
  const url = `http://127.0.0.1:${port}`;
  const ask = (path: string, { headers, ...init }: RequestInit = {}): Promise<Response> =>
    fetch(url + path, { ...init, headers: { authorization: `Bearer ${TOKEN}`, ...(headers as object) } });
  const stop = async (): Promise<void> => {
    if (!ended) controller.abort(new Error('the test is over'));
    await running;
  };
  return {
    url,
    port,
    log: () => log,
    ask,
    post: (path, body, { headers, ...init } = {}) =>
      ask(path, {
        method: 'POST',
        body: typeof body === 'string' ? body : JSON.stringify(body),
        ...init,
        headers: { 'content-type': 'application/json', ...(headers as object) },
      }),
    ready: async () => {
      await eventually(async () => ((await fetch(`${url}/readyz`)).status === 200 ? true : undefined));
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** The problem in an answer. @throws when it is none, or tells more than it should. */
export async function problemIn(response: Response): Promise<Record<string, unknown>> {
  const text = await response.text();
  if (response.headers.get('content-type') !== 'application/problem+json') throw new Error(`no problem: ${text}`);
  const problem = JSON.parse(text) as Record<string, unknown>;
  if (problem['status'] !== response.status) throw new Error(`${response.status} is said to be ${problem['status']}`);
  if (/node_modules|\.[jt]s:\d|\\n +at /.test(text)) throw new Error(`a stack: ${text}`);
  for (const name of ['type', 'title', 'detail', 'requestId']) {
    if (typeof problem[name] !== 'string') throw new Error(`no ${name}: ${text}`);
  }
  if (problem['requestId'] !== response.headers.get('x-request-id')) throw new Error(`another requestId: ${text}`);
  return problem;
}
