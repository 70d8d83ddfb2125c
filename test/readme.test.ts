import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { loadConfig } from '../src/config.ts';
import { VARIABLES } from '../src/config-variables.ts';
import { freePort } from '../src/demo/redis-server.ts';
import { FAILURES } from '../src/failure.ts';
import type { MediaProducer, MediaProducerOptions } from '../src/index.ts';
import { openTestRedis, type TestRedis } from './support/redis.ts';

function fileText(name: string): string {
  return readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');
}

const readme = fileText('README.md');

/** The cells of the table whose first column is called so. */
function tableOf(firstColumn: string): string[][] {
  const lines = readme.split('\n');
  const head = lines.findIndex((line) => line.startsWith(`| ${firstColumn} |`));
  const rows = lines.slice(head + 2);
  const end = rows.findIndex((line) => !line.startsWith('|'));
  return rows.slice(0, end).map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );
}

describe('the table of failures', () => {
  const rows = tableOf('failure');

  test('is the table of the program, row for row', () => {
    const expected = Object.entries(FAILURES).map(([code, { action, hint }]) => [`\`${code}\``, action, hint]);
    expect(rows).toEqual(expected);
  });
});

describe('the table of variables', () => {
  const rows = tableOf('variable');

  test('names every variable that the program reads, and none beyond', () => {
    expect(rows.map(([name]) => name).toSorted()).toEqual(
      Object.keys(VARIABLES)
        .map((name) => `\`${name}\``)
        .toSorted(),
    );
  });

  test.each(Object.entries(VARIABLES) as [string, { default?: string }][])('%s has its default', (name, variable) => {
    const shown = rows.find(([cell]) => cell === `\`${name}\``)?.[1];
    // Its default depends on another variable and is told in words.
    if (name === 'ARCHIVE_OPEN_ID') expect(variable.default).toBeUndefined();
    else expect(shown).toBe(variable.default === undefined ? '–' : `\`${variable.default}\``);
  });

  test('says what each variable is for', () => {
    for (const [, , meaning] of rows) expect(meaning).toMatch(/\w/);
  });
});

test('the accounts file that it shows is accepted but for its secrets, which are not here', () => {
  const [, json = ''] = /```json\n([\s\S]*?)```/.exec(readme) ?? [];
  const { accounts } = JSON.parse(json) as { accounts: { appId: string; credential: { type: string } }[] };
  expect(accounts.map(({ credential }) => credential.type)).toEqual(['stable_token', 'token']);
  for (const { appId } of accounts) {
    expect(loadConfig({ WEIXIN_APP_ID: appId, WEIXIN_APP_SECRET: 'x' }).accounts).toHaveLength(1);
  }
});

describe('its webhook handler', () => {
  type OnMessage = (message: object, reply: (answer: unknown) => unknown) => Promise<unknown>;
  interface Handler {
    readonly onMessage: OnMessage;
    readonly producer: MediaProducer;
  }

  const [, example = ''] = /```js\n([\s\S]*?)```/.exec(readme) ?? [];
  let parts: AsyncDisposableStack;

  beforeEach(() => {
    parts = new AsyncDisposableStack();
  });

  afterEach(() => parts.disposeAsync());

  /** The example as it stands, but for the address of Redis and where its package lies. */
  async function handlerOf(options: MediaProducerOptions): Promise<Handler> {
    const folder = await mkdtemp(join(tmpdir(), 'weixin-media-readme-'));
    parts.defer(() => rm(folder, { recursive: true }));
    const code = example
      .replace("'weixin-media-archiver'", JSON.stringify(new URL('../src/index.ts', import.meta.url).href))
      .replace("{ redisUrl: 'redis://127.0.0.1:6379' }", JSON.stringify(options))
      .replace('const producer', 'export const producer');
    const path = join(folder, 'handler.mjs');
    await writeFile(path, code);
    const handler = (await import(pathToFileURL(path).href)) as Handler;
    parts.defer(() => handler.producer.close());
    return handler;
  }

  async function queuedIn({ redis, prefix }: TestRedis): Promise<unknown[]> {
    const keys = await redis.keys(`${prefix.replaceAll(/[{}]/g, '?')}*`);
    const data = await Promise.all(
      keys.map(async (key) => ((await redis.type(key)) === 'hash' ? redis.hget(key, 'data') : null)),
    );
    return data.filter((text) => text !== null).map((text) => JSON.parse(text));
  }

  const now = Math.floor(Date.now() / 1000);
  const common = { ToUserName: 'gh_1', FromUserName: 'oPERSON', CreateTime: String(now), MsgId: '23456789012345678' };
  const MESSAGES: readonly [string, object, Record<string, string | undefined>][] = [
    ['text', { Content: 'hello' }, {}],
    ['image', { PicUrl: 'http://x', MediaId: 'A' }, { A: 'image' }],
    ['voice', { MediaId: 'A', Format: 'amr', MediaId16K: 'B' }, { A: 'voice', B: 'voice' }],
    ['voice', { MediaId: 'A', Format: 'amr' }, { A: 'voice' }],
    ['video', { MediaId: 'A', ThumbMediaId: 'B' }, { A: 'video', B: 'thumb' }],
    ['shortvideo', { MediaId: 'A', ThumbMediaId: 'B' }, { A: 'video', B: 'thumb' }],
    ['miniprogrampage', { Title: 'x', ThumbUrl: 'http://x', ThumbMediaId: 'B' }, { B: 'thumb' }],
    ['location', { Location_X: '1' }, {}],
    ['link', { Url: 'http://x' }, {}],
    ['event', { Event: 'subscribe' }, {}],
    ['file', { MediaId: 'A' }, { A: undefined }],
    ['a kind of tomorrow', { MediaId: 'A' }, { A: undefined }],
  ];

  test.each(MESSAGES)('queues the media of a message of type %s: %j', async (MsgType, fields, expected) => {
    const corner = parts.use(await openTestRedis());
    const { onMessage } = await handlerOf({ redisUrl: corner.url, prefix: corner.prefix, timeoutMs: 30_000 });
    const message = { ...common, MsgType, ...fields };
    expect(await onMessage(message, (answer) => answer)).toBe('success');
    // WeChat pushes it again when the answer is late.
    expect(await onMessage(message, (answer) => answer)).toBe('success');
    const jobs = Object.entries(expected).map(([mediaId, kind]) => ({
      v: 1,
      appId: 'wx0123456789abcdef',
      mediaId,
      ...(kind === undefined ? {} : { kind }),
      receivedAt: new Date(now * 1000).toISOString(),
      source: { messageId: common.MsgId },
    }));
    const queued = await queuedIn(corner);
    expect(queued).toHaveLength(jobs.length);
    expect(queued).toEqual(expect.arrayContaining(jobs));
  });

  test('takes a message whose media_id is none, and says so', async () => {
    const corner = parts.use(await openTestRedis());
    const { onMessage } = await handlerOf({ redisUrl: corner.url, prefix: corner.prefix, timeoutMs: 30_000 });
    const said = vi.spyOn(console, 'error').mockReturnValue();
    parts.defer(() => said.mockRestore());
    const message = { ...common, MsgType: 'video', MediaId: 'a/b', ThumbMediaId: 'B' };
    expect(await onMessage(message, (answer) => answer)).toBe('success');
    expect(said).toHaveBeenCalledOnce();
    expect(await queuedIn(corner)).toMatchObject([{ mediaId: 'B' }]);
  });

  test('answers 503 while Redis is away, but to a message without media', async () => {
    const { onMessage } = await handlerOf({ redisUrl: `redis://127.0.0.1:${await freePort()}`, timeoutMs: 200 });
    const said = vi.spyOn(console, 'error').mockReturnValue();
    parts.defer(() => said.mockRestore());
    const image = { ...common, MsgType: 'image', MediaId: 'A' };
    expect(await onMessage(image, (answer) => answer)).toBe(503);
    expect(said).toHaveBeenCalledWith(expect.stringMatching(/^Redis did not answer within 200 ms \(TimeoutError: /));
    expect(await onMessage({ ...common, MsgType: 'text' }, (answer) => answer)).toBe('success');
  });
});

test('the Node.js that it asks for is the one that the package asks for', () => {
  const { engines } = JSON.parse(fileText('package.json')) as { engines: { node: string } };
  const needed = [...readme.matchAll(/(?:must be|older than|plain node ≥) (\d+\.\d+)/g)].map(
    ([, version]) => `>=${version}`,
  );
  expect(needed).toEqual([engines.node, engines.node, engines.node]);
});

test('every npm script that it names is there', () => {
  const { scripts } = JSON.parse(fileText('package.json')) as { scripts: Record<string, string> };
  const named = [...readme.matchAll(/npm run (?:-s )?([a-z:]+)/g)].map(([, name = '']) => name);
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => !(name in scripts))).toEqual([]);
});

test('every file that it links to is there', () => {
  const links = [...readme.matchAll(/\]\(([^)#]+)\)/g)]
    .map(([, path = '']) => path)
    .filter((path) => !/^http/.test(path));
  expect(links).not.toEqual([]);
  for (const path of links) expect(fileText(path)).not.toBe('');
});

describe('docker-compose.yml', () => {
  const compose = fileText('docker-compose.yml');
  const known = Object.keys(VARIABLES);

  /** What a service sets: by value, as it stands there. */
  function settingsOf(service: string): Map<string, string | undefined> {
    const [, block = ''] = new RegExp(`^ {2}${service}:\\n([\\s\\S]*?)^(?: {2})?\\w+:$`, 'm').exec(compose) ?? [];
    return new Map([...block.matchAll(/^ {6}([A-Z][A-Z0-9_]+):(.*)$/gm)].map(([, name = '', value]) => [name, value]));
  }

  const absent = ['REDIS_SENTINELS', 'REDIS_SENTINEL_MASTER', 'REDIS_CLUSTER_NODES', 'REDIS_WAIT_REPLICAS'];
  const ofIngest = [
    ...['HTTP_HOST', 'HTTP_PORT', 'API_TOKENS', 'API_RATE_LIMIT'],
    ...['WEIXIN_PUSH_TOKEN', 'WEIXIN_PUSH_AES_KEY', 'WEIXIN_PUSH_MODE', 'WEIXIN_FORWARD_URL'],
  ];
  const ofCatalog = known.filter((name) => name.startsWith('CATALOG_'));
  const ofArchiving = /^(METRICS_|WORKER_|WEIXIN_(DOWNLOAD|TOTAL_TIMEOUT)|MEDIA_MAX_BYTES$|ARCHIVE_PART_SIZE$)/;
  const services = [
    {
      service: 'worker',
      own: ['REDIS_URL', 'S3_FORCE_PATH_STYLE', 'METRICS_HOST', 'METRICS_PORT'],
      wanted: known.filter((name) => ![...ofIngest, ...ofCatalog].includes(name)),
    },
    {
      service: 'ingest',
      own: ['REDIS_URL', 'S3_FORCE_PATH_STYLE', 'HTTP_HOST', 'HTTP_PORT'],
      wanted: known.filter((name) => !(ofArchiving.test(name) || ofCatalog.includes(name))),
    },
    {
      service: 'catalog',
      own: ['REDIS_URL', 'S3_FORCE_PATH_STYLE', 'METRICS_HOST', 'METRICS_PORT'],
      wanted: [
        'QUEUE_PREFIX',
        'ARCHIVE_PART_SIZE',
        'MEDIA_TTL_HOURS',
        'SHUTDOWN_GRACE_SECONDS',
        'LOG_LEVEL',
        ...ofCatalog,
      ],
    },
  ];

  describe.each(services)('its $service', ({ service, own, wanted }) => {
    const set = settingsOf(service);

    test('sets no variable that the program refuses', () => {
      const allowed = [...known, 'AWS_ENDPOINT_URL_S3', 'AWS_REGION'];
      expect([...set.keys()].filter((name) => !allowed.includes(name))).toEqual([]);
    });

    test('is given every variable of .env that it needs, but the addresses of the own parts', () => {
      const names = wanted.filter((name) => ![...own, ...absent, 'ARCHIVE_BUCKET'].includes(name));
      expect(names.filter((name) => set.get(name) !== '')).toEqual([]);
      expect(set.get('ARCHIVE_BUCKET')).toMatch(/^ \$\{ARCHIVE_BUCKET:-/);
      for (const name of own) expect(set.get(name)).toMatch(/^ [^$]+$/);
    });
  });

  test('gives a worker more time to stop than it takes by default', () => {
    const [, minutes] = /^ {2}worker:[\s\S]*stop_grace_period: (\d+)m$/m.exec(compose) ?? [];
    expect(Number(minutes) * 60).toBeGreaterThan(Number(VARIABLES.SHUTDOWN_GRACE_SECONDS.default));
  });
});
