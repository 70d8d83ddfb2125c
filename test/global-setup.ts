import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestProject } from 'vitest/node';
import { provideRedisServer, startRedisServer } from '../src/demo/redis-server.ts';

declare module 'vitest' {
  export interface ProvidedContext {
    /** The redis-server that all test files share, each under prefixes of its own. */
    readonly redisUrl: string;
    /** For tests that start a redis-server of their own. */
    readonly redisExecutable: string;
  }
}

/** Starts one redis-server for all test files. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const executable = await provideRedisServer((text) => process.stderr.write(`${text}\n`));
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-redis-'));
  const server = await startRedisServer(executable, { directory, appendOnly: false });
  // Hundreds of processes load the same files.
  process.env['NODE_COMPILE_CACHE'] = join(directory, 'compile-cache');
  project.provide('redisUrl', server.url);
  project.provide('redisExecutable', executable);
  return async () => {
    await server.stop();
    // A test process that ends just now may still put something there.
    await rm(directory, { recursive: true, force: true, maxRetries: 10 });
  };
}
