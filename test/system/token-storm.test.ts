import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, test, vi } from 'vitest';
import { eventually } from '../support/eventually.ts';
import { APP_ID } from '../support/jobs.ts';
import {
  jobOf,
  lettersOf,
  logLines,
  notArchived,
  openJobs,
  openStack,
  type Stack,
  untilIdle,
} from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const SLOTS = 20;

/** Stands before the simulator and keeps calls of the token endpoints back for as long as `held` says. */
interface TokenGate extends AsyncDisposable {
  readonly url: string;
  held: () => boolean;
}

async function openTokenGate(simulatorUrl: string): Promise<TokenGate> {
  const forward = (incoming: IncomingMessage, answer: ServerResponse): void => {
    const { method, url, headers } = incoming;
    const options = { method, headers, agent: false } as const;
    const outgoing = request(new URL(url ?? '/', simulatorUrl), options, (response) => {
      answer.writeHead(response.statusCode ?? 500, response.headers);
      response.pipe(answer);
    });
    outgoing.on('error', () => answer.destroy());
    incoming.pipe(outgoing);
  };
  const server = createServer((incoming, answer) => {
    if (incoming.url?.includes('token?') === false && !incoming.url.endsWith('token')) return forward(incoming, answer);
    void eventually(() => (gate.held() ? undefined : true)).then(
      () => forward(incoming, answer),
      () => answer.destroy(),
    );
  });
  const { promise: listening, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await listening;
  const gate: TokenGate = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    held: () => false,
    [Symbol.asyncDispose]: async () => {
      server.closeAllConnections();
      const { promise, resolve: closed } = Promise.withResolvers<void>();
      server.close(() => closed());
      await promise;
    },
  };
  return gate;
}

function tokenCalls({ simulator }: Stack): number {
  return simulator.counts.tokens.get(APP_ID) ?? 0;
}

function rejections({ simulator }: Stack): number {
  return simulator.counts.errors.get(40001) ?? 0;
}

test('40 jobs of two workers that meet 40001 at once cost one call for a token, and none of them fails', async () => {
  await using stack = await openStack({ env: { WORKER_CONCURRENCY: String(SLOTS) } });
  await using gate = await openTokenGate(stack.simulator.url);
  const workers = [1, 2].map(() => stack.worker({ WEIXIN_API_BASE_URL: gate.url }));
  await Promise.all(workers.map((worker) => worker.said('worker started')));
  await eventually(() =>
    workers.some((worker) => worker.log().includes('access_token refreshed')) ? true : undefined,
  );
  expect(tokenCalls(stack)).toBe(1);
  // Both workers hold it.
  const first = stack.addMedia(2 * SLOTS);
  await stack.queue.door.admit(first.map(jobOf));
  await untilIdle(stack);
  expect(tokenCalls(stack)).toBe(1);

  stack.simulator.rotateToken(APP_ID);
  gate.held = () => rejections(stack) < 2 * SLOTS;
  const media = stack.addMedia(3 * SLOTS);
  await stack.queue.door.admit(media.map(jobOf));
  await untilIdle(stack);

  expect(rejections(stack)).toBe(2 * SLOTS);
  expect(tokenCalls(stack)).toBe(2);
  expect(await notArchived(stack, [...first, ...media])).toEqual([]);
  expect(workers.flatMap((worker) => logLines(worker, 'failed'))).toEqual([]);
});

test('a token that is rotated under way, again and again, costs one call each time, and no job fails', async () => {
  await using stack = await openStack({ env: { WORKER_CONCURRENCY: '4' } });
  const workers = [stack.worker(), stack.worker()];
  const waves = [1, 2, 3, 4].map(() => stack.addMedia(40, { sizeBytes: 100_000 }));
  for (const [index, wave] of waves.entries()) {
    await stack.queue.door.admit(wave.map(jobOf));
    await eventually(async () => ((await openJobs(stack)) < wave.length - 5 ? true : undefined));
    // The next wave meets the old token at the latest.
    if (index + 1 < waves.length) stack.simulator.rotateToken(APP_ID);
  }
  await untilIdle(stack);
  expect(tokenCalls(stack)).toBe(waves.length);
  expect(await notArchived(stack, waves.flat())).toEqual([]);
  expect(await lettersOf(stack)).toEqual([]);
  expect(workers.flatMap((worker) => logLines(worker, 'failed'))).toEqual([]);
});
