import { Server } from 'node:net';

/** An S3 server in this process, on loopback, for the demo and quick tests. */
export interface EmbeddedS3 extends AsyncDisposable {
  readonly endpoint: string;
  readonly bucket: string;
  stop(): Promise<void>;
}

/**
 * Starts fauxqs with one bucket.
 *
 * It checks neither payload hashes nor If-None-Match, so it can stand in for a store, but not prove what a store does.
 *
 * @param directory where objects lie as files; absent: in memory.
 * @throws Error when fauxqs, a development dependency, is not installed.
 */
export async function startEmbeddedS3(bucket: string, directory?: string): Promise<EmbeddedS3> {
  const { startFauxqs } = await import('fauxqs').catch(() => {
    throw new Error('the embedded S3 server is not installed: run this in a checkout, after `npm ci`');
  });
  const server = await onLoopback(() =>
    startFauxqs({ port: 0, logger: false, ...(directory === undefined ? {} : { s3StorageDir: directory }) }),
  );
  server.createBucket(bucket);
  const stop = (): Promise<void> => server.stop();
  return { endpoint: `http://127.0.0.1:${server.port}`, bucket, stop, [Symbol.asyncDispose]: stop };
}

/** fauxqs listens on every interface and takes no other wish: while it starts, listening means loopback. */
async function onLoopback<T>(start: () => Promise<T>): Promise<T> {
  const original = Server.prototype.listen;
  const listen = original as (this: Server, ...args: unknown[]) => Server;
  Server.prototype.listen = function loopbackOnly(this: Server, ...args: unknown[]): Server {
    const [first, ...rest] = args;
    const confined = typeof first === 'object' && first !== null ? { ...first, host: '127.0.0.1' } : first;
    return listen.call(this, confined, ...rest);
  } as typeof original;
  try {
    return await start();
  } finally {
    Server.prototype.listen = original;
  }
}
