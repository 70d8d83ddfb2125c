import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** A server of a bench in a process of its own, so that its memory is not the worker's. */
export interface HelperProcess<Ask, Answer> extends AsyncDisposable {
  readonly pid: number;
  /** Resolves with what the process answers. @throws Error when it says that it could not, or has ended. */
  ask(question: Ask): Promise<Answer>;
}

interface Envelope {
  readonly id: number;
  readonly content: unknown;
  readonly error?: string;
}

/**
 * Starts the program at `url`, which must call `answerParent`. It ends with us, however we end: its channel closes.
 *
 * @param url of a TypeScript file.
 */
export function startHelper<Ask, Answer>(
  url: URL,
  args: readonly string[] = [],
  execArgv: readonly string[] = [],
): HelperProcess<Ask, Answer> {
  const child = fork(fileURLToPath(url), [...args], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    execArgv: [...process.execArgv, ...execArgv],
  });
  const open = new Map<number, PromiseWithResolvers<Answer>>();
  const exited = Promise.withResolvers<void>();
  let last = 0;
  child.on('message', ({ id, content, error }: Envelope) => {
    const waiting = open.get(id);
    open.delete(id);
    if (error === undefined) waiting?.resolve(content as Answer);
    else waiting?.reject(new Error(error));
  });
  child.once('exit', (code) => {
    for (const { reject } of open.values()) reject(new Error(`${url.pathname} ended with ${code}`));
    open.clear();
    exited.resolve();
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`${url.pathname} could not be started`);
  return {
    pid,
    ask: async (question) => {
      last += 1;
      const waiting = Promise.withResolvers<Answer>();
      open.set(last, waiting);
      child.send({ id: last, content: question } satisfies Envelope);
      return waiting.promise;
    },
    [Symbol.asyncDispose]: async () => {
      child.kill('SIGKILL');
      await exited.promise;
    },
  };
}

/** In the helper: answers what the parent asks, one question at a time, and ends when the parent is gone. */
export function answerParent<Ask, Answer>(answer: (question: Ask) => Answer | Promise<Answer>): void {
  let turn = Promise.resolve();
  process.on('message', ({ id, content }: Envelope) => {
    turn = turn.then(async () => {
      try {
        process.send?.({ id, content: await answer(content as Ask) } satisfies Envelope);
      } catch (error) {
        process.send?.({ id, content: undefined, error: String(error) } satisfies Envelope);
      }
    });
  });
  process.once('disconnect', () => process.exit());
}
