import { readFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { openIngest, type TestIngest, TOKEN } from '../support/ingest.ts';
import { openTestStore, type TestStore } from '../support/queue.ts';
import { openTestRedis, type TestRedis } from '../support/redis.ts';

const text = readFileSync(new URL('../../docs/http-api.md', import.meta.url), 'utf8');

interface Example {
  readonly status: number;
  readonly command: string;
}

const examples = [...text.matchAll(/```sh\n# (\d{3})\n(curl [\s\S]*?)```/g)].map(
  ([, status, command = '']): Example => ({ status: Number(status), command }),
);

let corner: TestRedis;
let bucket: TestStore;
let ingest: TestIngest;

beforeAll(async () => {
  [corner, bucket] = await Promise.all([openTestRedis(), openTestStore()]);
  // The SDK reads them by itself.
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
  ingest = await openIngest({
    REDIS_URL: corner.url,
    QUEUE_PREFIX: corner.prefix,
    ARCHIVE_BUCKET: bucket.s3.bucket,
    AWS_ENDPOINT_URL_S3: bucket.s3.endpoint,
    AWS_REGION: 'us-east-1',
    S3_FORCE_PATH_STYLE: 'true',
  });
  await ingest.ready();
});

afterAll(async () => {
  vi.unstubAllEnvs();
  await ingest.stop();
  await bucket[Symbol.asyncDispose]();
  await corner[Symbol.asyncDispose]();
});

/** Splits a command line as a shell would: single quotes keep all, double quotes let variables in. */
function wordsOf(command: string): string[] {
  const values: Readonly<Record<string, string>> = { API: ingest.url, TOKEN };
  const words = command.replaceAll('\\\n', ' ').matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g);
  return [...words].map(
    ([, single, double, bare]) =>
      single ?? bare ?? (double ?? '').replaceAll(/\$([A-Z]+)/g, (_, name: string) => values[name] ?? `no ${name}`),
  );
}

/** Does what curl would do. @throws for an option that the examples did not have when this was written. */
async function curl(command: string): Promise<Response> {
  const [, ...words] = wordsOf(command);
  const headers: Record<string, string> = {};
  let url = '';
  let body: string | undefined;
  for (let at = 0; at < words.length; at += 1) {
    const word = words[at] ?? '';
    if (word === '-sS') continue;
    if (word === '-H') {
      const [name = '', value = ''] = (words[++at] ?? '').split(/: (.*)/);
      headers[name] = value;
    } else if (word === '-d') body = words[++at] ?? '';
    else if (/^http/.test(word)) url = word;
    else throw new Error(`curl ${word}`);
  }
  return await fetch(url, body === undefined ? { headers } : { method: 'POST', headers, body });
}

test('docs/http-api.md shows every kind of request', () => {
  expect(examples.length).toBeGreaterThanOrEqual(10);
  for (const path of ['/v1/media', '/v1/media/', '/v1/dead-letters?', '/v1/dead-letters/wx', '/replay', '/discard']) {
    expect(examples.some(({ command }) => command.includes(path))).toBe(true);
  }
});

test.each(examples)('it is answered with $status: $command', async ({ command, status }) => {
  const response = await curl(command);
  expect([response.status, await response.text()]).toEqual([status, expect.any(String)]);
});

test('docs/http-api.md names every path and status that the server describes', async () => {
  const { paths } = (await (await fetch(`${ingest.url}/openapi.json`)).json()) as {
    paths: Record<string, Record<string, { responses: object }>>;
  };
  for (const [path, operations] of Object.entries(paths)) {
    expect(text).toContain(path);
    for (const { responses } of Object.values(operations)) {
      for (const status of Object.keys(responses)) expect(text).toMatch(new RegExp(`\\b${status}\\b`));
    }
  }
});
