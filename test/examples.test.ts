import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { cp, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../src/demo/redis-server.ts';
import type { MediaJob } from '../src/index.ts';
import { closeRedis, connectRedis } from '../src/redis/connect.ts';
import { Secret } from '../src/secret.ts';
import { eventually } from './support/eventually.ts';
import { installPackage } from './support/installed-package.ts';
import { APP_ID } from './support/jobs.ts';
import { type OwnRedis, openOwnRedis } from './support/own-redis.ts';

const examples = fileURLToPath(new URL('../docs/examples', import.meta.url));
const TOKEN = 'the-token-of-the-push';
/** WeChat waits no longer. @see https://developers.weixin.qq.com/doc/service/guide/product/message/Receiving_standard_messages.html */
const WEIXIN_WAITS_MS = 5_000;

let installed: AsyncDisposableStack;
let folder: string;

beforeAll(async () => {
  installed = new AsyncDisposableStack();
  folder = await installPackage(installed);
  await cp(examples, folder, { recursive: true });
});

afterAll(() => installed.disposeAsync());

let parts: AsyncDisposableStack;
let own: OwnRedis;

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  own = parts.use(await openOwnRedis());
});

afterEach(() => parts.disposeAsync());

interface Webhook {
  readonly child: ChildProcess;
  readonly said: () => string;
  get(more?: Readonly<Record<string, string>>): Promise<Response>;
  push(xml: string, more?: Readonly<Record<string, string>>): Promise<Response>;
}

/** Runs an example as its reader does. */
async function start(name: string): Promise<Webhook> {
  const port = String(await freePort());
  const env = { APP_ID, PUSH_TOKEN: TOKEN, REDIS_URL: own.url, PORT: port };
  const child = spawn(process.execPath, [join(folder, name)], { env, stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'exit');
  parts.defer(async () => {
    child.kill('SIGKILL');
    await ended;
  });
  let said = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said += text;
  });
  const ask = (more: Readonly<Record<string, string>> = {}, init: RequestInit = {}): Promise<Response> => {
    const query = new URLSearchParams({ ...signed(), ...more });
    const signal = AbortSignal.timeout(WEIXIN_WAITS_MS);
    return fetch(`http://127.0.0.1:${port}/weixin?${query}`, { ...init, signal });
  };
  await eventually(() => {
    if (child.exitCode !== null) throw new Error(said);
    return ask().catch(() => undefined);
  });
  return {
    child,
    said: () => said,
    get: (more) => ask(more),
    push: (body, more) => ask(more, { method: 'POST', body, headers: { 'content-type': 'text/xml' } }),
  };
}

function signed(): Record<string, string> {
  const [timestamp, nonce] = ['1767225600', '4242'];
  const signature = createHash('sha1').update([TOKEN, timestamp, nonce].toSorted().join('')).digest('hex');
  return { timestamp, nonce, signature };
}

const SENT_AT = Math.floor(Date.now() / 1_000);

/** As WeChat writes it: texts as CDATA, numbers bare. */
function xmlOf(fields: Readonly<Record<string, string | number>>): string {
  const all = { ToUserName: 'gh_1', FromUserName: 'oPERSON', CreateTime: SENT_AT, ...fields };
  const tags = Object.entries(all).map(([name, value]) => {
    return `<${name}>${typeof value === 'number' || name === 'MsgId' ? value : `<![CDATA[${value}]]>`}</${name}>`;
  });
  return `<xml>${tags.join('')}</xml>`;
}

const MSG_ID = '6089239057186927631';
// Of digits, which a parser may take for a number.
const IMAGE = xmlOf({ MsgType: 'image', PicUrl: 'http://x/?a=1&b=2', MediaId: '0042', MsgId: MSG_ID });
const VOICE = xmlOf({ MsgType: 'voice', MediaId: 'VOICE-1', Format: 'amr', MediaId16K: 'VOICE-2', MsgId: MSG_ID });
const VIDEO = xmlOf({ MsgType: 'video', MediaId: 'VIDEO-1', ThumbMediaId: 'THUMB-1', MsgId: MSG_ID });
const TEXT = xmlOf({ MsgType: 'text', Content: '&lt;MediaId&gt;', MsgId: MSG_ID });

/** What lies in the lane of the app. */
async function queued(): Promise<MediaJob[]> {
  const config = { url: new Secret(own.url), prefix: '', sentinelMaster: '' };
  const redis = connectRedis(config, 'patient', 'test', () => undefined);
  try {
    const keys = await redis.keys(`?weixin-media?:media-${APP_ID}:${APP_ID}-*`);
    const data = await Promise.all(keys.map((key) => redis.hget(key, 'data')));
    const jobs = data.map((text) => JSON.parse(text ?? '') as MediaJob);
    return jobs.toSorted((one, other) => one.mediaId.localeCompare(other.mediaId));
  } finally {
    await closeRedis(redis);
  }
}

test('there is an example for each framework that is tested here', async () => {
  expect((await readdir(examples)).toSorted()).toEqual(['express.mjs', 'fastify.mjs', 'koa.mjs']);
});

describe.each(['express.mjs', 'fastify.mjs', 'koa.mjs'])('%s', (name) => {
  test('answers the verification of its address, and nobody who does not know the token', async () => {
    const { get, push } = await start(name);
    const answer = await get({ echostr: '4242<b>' });
    expect([answer.status, await answer.text()]).toEqual([200, '4242<b>']);
    expect(answer.headers.get('content-type')).toMatch(/^text\/plain/);
    for (const wrong of [
      { signature: '0'.repeat(40) },
      { signature: 'é'.repeat(40) },
      { signature: '' },
      { nonce: '1' },
    ]) {
      expect((await get({ echostr: 'x', ...wrong })).status).toBe(403);
      expect((await push(IMAGE, wrong)).status).toBe(403);
    }
    expect(await queued()).toEqual([]);
  });

  test('queues the media of messages once, and lets WeChat push again what Redis has not taken', async () => {
    const { push, said, child } = await start(name);
    for (const message of [IMAGE, VOICE, VIDEO, TEXT, IMAGE]) {
      const answer = await push(message);
      expect([answer.status, await answer.text()]).toEqual([200, 'success']);
    }
    const [receivedAt, appId] = [new Date(SENT_AT * 1_000).toISOString(), APP_ID];
    const all = { v: 1, appId, receivedAt, source: { messageId: MSG_ID } };
    const jobs = [
      { ...all, mediaId: '0042', kind: 'image' },
      { ...all, mediaId: 'THUMB-1', kind: 'thumb' },
      { ...all, mediaId: 'VIDEO-1', kind: 'video' },
      { ...all, mediaId: 'VOICE-1', kind: 'voice' },
      { ...all, mediaId: 'VOICE-2', kind: 'voice' },
    ];
    expect(await queued()).toEqual(jobs);
    expect(said()).toBe('');

    // No push makes these better, so the first ends, and is told of; the other two are not for this handler.
    const odd = await push(xmlOf({ MsgType: 'image', MediaId: 'a/b', MsgId: MSG_ID }));
    expect([odd.status, await odd.text()]).toEqual([200, 'success']);
    expect((await push(xmlOf({ Encrypt: 'Zm9v' }))).status).toBe(400);
    expect((await push('')).status).toBe(400);
    expect((await push(`<xml>${'x'.repeat(100_000)}</xml>`)).status).toBe(413);
    await eventually(() => (/no media job in message 6089239057186927631/.test(said()) ? true : undefined));
    expect(said()).not.toContain('oPERSON');
    expect(await queued()).toEqual(jobs);

    const broken = ['<xml><MsgType', '<!--', '<xml><__proto__>1</__proto__></xml>', '{}'];
    for (const body of broken) {
      const answer = await push(body);
      expect([body, answer.status, await answer.text()]).toEqual([body, 400, '']);
    }
    // A line for each, the two above included, and no stack of the parser's.
    const told = (): number => [...said().matchAll(/^that was no message: is the push in plaintext mode\?$/gm)].length;
    await eventually(() => (told() === broken.length + 2 ? true : undefined));
    expect(said()).not.toContain('fast-xml-parser');
    expect(await queued()).toEqual(jobs);

    own.freeze();
    const late = xmlOf({ MsgType: 'image', MediaId: 'IMAGE-2', MsgId: MSG_ID });
    expect((await push(late)).status).toBe(503);
    expect((await push(TEXT)).status).toBe(200);
    own.thaw();
    await eventually(async () => ((await push(late)).status === 200 ? true : undefined));
    expect(await queued()).toHaveLength(jobs.length + 1);

    child.kill('SIGTERM');
    await eventually(() => (child.exitCode === 0 ? true : undefined));
  });
});
