import { type AddressInfo, createServer, type Socket } from 'node:net';
import { succeed } from '../../src/failure.ts';
import { Secret } from '../../src/secret.ts';
import { createApiHosts } from '../../src/weixin/api-hosts.ts';
import { createHttpPool, type WeixinTimeouts } from '../../src/weixin/http.ts';
import { createVideoDownloader } from '../../src/weixin/video-url.ts';
import { createWeixinClient, type WeixinClient } from '../../src/weixin/weixin-client.ts';
import { testAccount } from './jobs.ts';
import { TEST_TIMEOUTS } from './weixin.ts';

/** Every client of a raw server sends this one; whatever the server answers. */
export const RAW_TOKEN = 'the-Token_of_the-Request';

/** A request of a client: the first line and the headers. */
export interface RawRequest {
  readonly head: string;
  readonly mediaId: string;
}

/** Does with the connection what it likes. Rejects only by a defect of the test. */
export type RawAnswer = (socket: Socket, request: RawRequest) => Promise<void> | void;

/** A server on loopback that knows no HTTP. */
export interface RawServer extends AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** Every connection that was ever made. */
  readonly sockets: readonly Socket[];
  /** The bytes that the other side has taken, in all connections. */
  sentBytes(): number;
}

export async function startRawServer(answer: RawAnswer): Promise<RawServer> {
  const sockets: Socket[] = [];
  const server = createServer((socket) => {
    sockets.push(socket);
    socket.setNoDelay(true);
    // The other side hangs up when it has seen enough.
    socket.on('error', () => undefined);
    let head = '';
    socket.on('data', (chunk) => {
      head += chunk.toString('latin1');
      if (!head.endsWith('\r\n\r\n')) return;
      const mediaId = /[?&]media_id=([\w-]+)/.exec(head)?.[1] ?? '';
      const request = { head, mediaId };
      head = '';
      void answer(socket, request);
    });
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await promise;
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    sockets,
    // What still waits in the kernel counts as taken: it is gone from here.
    sentBytes: () => sockets.reduce((sum, { bytesWritten, writableLength }) => sum + bytesWritten - writableLength, 0),
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      const closed = Promise.withResolvers<void>();
      server.close(() => closed.resolve());
      await closed.promise;
    },
  };
}

/** Writes with backpressure. Resolves to false when the other side has gone. */
export async function send(socket: Socket, bytes: Uint8Array | string): Promise<boolean> {
  if (socket.destroyed || !socket.writable) return false;
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const onClose = (): void => resolve(false);
  socket.once('close', onClose);
  socket.write(bytes, (error) => resolve(error === null || error === undefined));
  const sent = await promise;
  socket.off('close', onClose);
  return sent;
}

/** Writes the same bytes until the other side has gone. */
export async function sendForEver(socket: Socket, bytes: Uint8Array | string): Promise<void> {
  while (await send(socket, bytes));
}

/** A raw server and a client of it. */
export interface RawWeixin extends AsyncDisposable {
  readonly server: RawServer;
  readonly client: WeixinClient;
}

export interface RawWeixinOptions {
  readonly timeouts?: Partial<WeixinTimeouts>;
  readonly maxBytes: number;
  /** Absent: each request has a connection of its own. */
  readonly keepAlive?: boolean;
}

export async function openRawWeixin(
  answer: RawAnswer,
  { maxBytes, keepAlive = false, ...options }: RawWeixinOptions,
): Promise<RawWeixin> {
  const timeouts = { ...TEST_TIMEOUTS, ...options.timeouts };
  const server = await startRawServer(answer);
  const pool = createHttpPool(timeouts, 1);
  const http = keepAlive ? pool : { ...pool, pooled: pool.fresh };
  const videos = createVideoDownloader({ timeouts, maxBytes, allowHosts: [`127.0.0.1:${server.port}`] });
  const hosts = createApiHosts([new URL(server.url)], Date.now);
  const token = new Secret(RAW_TOKEN);
  const tokens = {
    current: async () => succeed({ token, generation: '1' }),
    reject: async () => undefined,
  };
  const account = testAccount();
  const accounts = { find: (appId: string) => (appId === account.appId ? account : undefined) };
  return {
    server,
    client: createWeixinClient({ accounts, tokens, hosts, http, videos, timeouts, maxBytes, random: () => 0 }),
    [Symbol.asyncDispose]: async () => {
      await Promise.all([http.close(), videos.close()]);
      await server[Symbol.asyncDispose]();
    },
  };
}
