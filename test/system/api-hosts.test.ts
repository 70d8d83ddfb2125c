import { createServer, type Socket } from 'node:net';
import { expect, test, vi } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import { expectEachEndedOnce } from '../support/final-state.ts';
import { jobOf, lettersOf, logLines, openJobs, openStack, type Stack, untilIdle } from '../support/stack.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

/** Of a top-level domain that never resolves. @see https://www.rfc-editor.org/rfc/rfc6761#section-6.4 */
const UNKNOWN_HOST = 'http://weixin.invalid';
const SLOTS = 12;
const env = { WORKER_CONCURRENCY: String(SLOTS), WEIXIN_RESPONSE_TIMEOUT_SECONDS: '2' };

interface BadHost extends AsyncDisposable {
  readonly url: string;
}

function nothing(url: string): BadHost {
  return { url, [Symbol.asyncDispose]: async () => undefined };
}

/** Takes every connection and whatever comes over it, and says nothing. */
async function openMuteHost(): Promise<BadHost> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    socket.resume();
  });
  const port = await freePort();
  const { promise: listening, resolve } = Promise.withResolvers<void>();
  server.listen(port, '127.0.0.1', resolve);
  await listening;
  return {
    url: `http://127.0.0.1:${port}`,
    [Symbol.asyncDispose]: async () => {
      const { promise: closed, resolve: onClosed } = Promise.withResolvers<void>();
      server.close(() => onClosed());
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}

/** Media that workers with this host before the one that serves save, none of them by a second attempt. */
async function expectSavedAtOnce(stack: Stack, firstHost: string): Promise<void> {
  const hosts = { WEIXIN_API_BASE_URL: `${firstHost},${stack.simulator.url}` };
  const workers = [stack.worker(hosts), stack.worker(hosts)];
  const media = stack.addMedia(240, { sizeBytes: 5_000 });
  await stack.queue.door.admit(media.map(jobOf));
  await untilIdle(stack);
  expect(workers.flatMap((worker) => logLines(worker, 'failed'))).toEqual([]);
  await expectEachEndedOnce(stack, { saved: media, workers });
}

test.each([
  { what: 'has a name that does not resolve', open: async () => nothing(UNKNOWN_HOST) },
  { what: 'refuses connections', open: async () => nothing(`http://127.0.0.1:${await freePort()}`) },
  { what: 'takes requests and never answers', open: openMuteHost },
])('when the first host of WeChat $what, everything comes from the second, at the first attempt', async ({ open }) => {
  await using bad = await open();
  await using stack = await openStack({ env });
  await expectSavedAtOnce(stack, bad.url);
});

test('media that meet a silent first host of WeChat come from the second within the same attempt', async () => {
  await using mute = await openMuteHost();
  await using stack = await openStack({ env });
  // With the token at hand, only the media themselves meet the silence.
  const first = stack.worker();
  await first.said('access_token refreshed');
  await first.stop();
  await expectSavedAtOnce(stack, mute.url);
});

test('while no host of WeChat can be found, every media is kept, and saved once one can', async () => {
  await using stack = await openStack({ env });
  const media = stack.addMedia(240, { sizeBytes: 5_000 });
  const lost = stack.worker({ WEIXIN_API_BASE_URL: UNKNOWN_HOST });
  await stack.queue.door.admit(media.map(jobOf));
  await lost.said('"code":"weixin-unreachable"');
  await lost.said('failed, will be tried again');
  await lost.stop();
  expect(await openJobs(stack)).toBe(media.length);
  expect(await lettersOf(stack)).toEqual([]);
  const workers = [stack.worker(), stack.worker()];
  await untilIdle(stack);
  await expectEachEndedOnce(stack, { saved: media, workers: [lost, ...workers] });
});
