import type { Redis } from 'ioredis';
import type { RedisClient } from './connect.ts';

/**
 * Hands all commands of one turn of the event loop to the kernel at once. ioredis writes each by itself, and a system call
 * costs more than the rest of a command; jobs that run side by side mostly have something to say at the same time.
 *
 * Their order and their answers stay as they are.
 */
export function writeTogether(client: RedisClient): void {
  if (client.isCluster) client.on('+node', corkEachTurn);
  else corkEachTurn(client as Redis);
}

function corkEachTurn(client: Redis): void {
  client.on('connect', () => {
    const { stream } = client;
    const write = stream.write.bind(stream);
    let isCorked = false;
    const uncork = (): void => {
      isCorked = false;
      stream.uncork();
    };
    stream.write = ((...args: Parameters<typeof write>) => {
      if (!isCorked) {
        isCorked = true;
        stream.cork();
        setImmediate(uncork);
      }
      return write(...args);
    }) as typeof stream.write;
  });
}
