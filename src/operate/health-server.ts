import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { orAbort } from '../abort.ts';
import { SECOND } from '../time.ts';

/** What is asked of a process from outside. */
export interface HealthSources {
  /** Why the process should be restarted; `undefined` while it is well. */
  readonly unhealthy: () => string | undefined;
  /** Why the process can't do its work now; `undefined` while it can. */
  readonly unready: () => string | undefined;
  readonly metrics: () => Promise<{ readonly contentType: string; readonly body: string }>;
}

export interface HealthServer {
  readonly port: number;
  close(): Promise<void>;
}

/** The numbers of the queue lie in Redis, which may be away. */
const METRICS_TIMEOUT_MS = 2 * SECOND;

/**
 * Serves `/healthz`, `/readyz` and `/metrics`: 200 or 503, a line of text.
 *
 * @throws when the address can't be listened on.
 */
export async function startHealthServer(host: string, port: number, sources: HealthSources): Promise<HealthServer> {
  const server = createServer((request, response) => {
    const answer = (status: number, contentType: string, body: string): void => {
      response.writeHead(status, { 'content-type': contentType, 'cache-control': 'no-store' }).end(body);
    };
    const judge = (trouble: string | undefined): void =>
      answer(trouble === undefined ? 200 : 503, 'text/plain', `${trouble ?? 'ok'}\n`);
    switch (request.url?.split('?', 1)[0]) {
      case '/healthz':
        return judge(sources.unhealthy());
      case '/readyz':
        return judge(sources.unready());
      case '/metrics':
        orAbort(sources.metrics(), AbortSignal.timeout(METRICS_TIMEOUT_MS)).then(
          ({ contentType, body }) => answer(200, contentType, body),
          () => answer(503, 'text/plain', 'the numbers of the queue can not be read now\n'),
        );
        return;
      default:
        return answer(404, 'text/plain', 'not found\n');
    }
  });
  await listen(server, host, port);
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      server.close(() => resolve());
      server.closeAllConnections();
      await promise;
    },
  };
}

async function listen(server: Server, host: string, port: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  server.once('error', reject);
  server.listen(port, host, resolve);
  await promise;
  server.off('error', reject);
}
