import { connect, createServer, type Socket } from 'node:net';

/** A wire to a Redis, on loopback, that can be made to break. */
export interface BreakingWire extends AsyncDisposable {
  readonly url: string;
  /**
   * Breaks the connection with the `message`-th piece that is sent from now on, counted from 1.
   *
   * @param delivered whether that piece still arrives; its answer never does.
   */
  breakAt(message: number, delivered: boolean): void;
  /** Takes `breakAt` back. Returns whether it has broken. */
  mend(): boolean;
}

export async function openBreakingWire(redisUrl: string): Promise<BreakingWire> {
  const { hostname, port } = new URL(redisUrl);
  const sockets = new Set<Socket>();
  let left = Number.POSITIVE_INFINITY;
  let delivers = false;
  let broke = false;

  const server = createServer((near) => {
    const far = connect(Number(port), hostname);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => undefined);
      socket.once('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
    }
    far.on('data', (bytes) => near.write(bytes));
    near.on('data', (bytes) => {
      left -= 1;
      if (left !== 0) return far.write(bytes);
      broke = true;
      if (delivers) far.end(bytes);
      return near.destroy();
    });
  });
  const { promise: listening, resolve } = Promise.withResolvers<void>();
  server.listen(0, '127.0.0.1', resolve);
  await listening;
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the wire has no port');
  return {
    url: `redis://127.0.0.1:${address.port}`,
    breakAt: (message, delivered) => {
      left = message;
      delivers = delivered;
      broke = false;
    },
    mend: () => {
      left = Number.POSITIVE_INFINITY;
      return broke;
    },
    [Symbol.asyncDispose]: async () => {
      const { promise: closed, resolve: onClosed } = Promise.withResolvers<void>();
      server.close(() => onClosed());
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
