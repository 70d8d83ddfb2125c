import { once } from 'node:events';
import { request as httpRequest } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createConnection } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import fastify, { type FastifyInstance } from 'fastify';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type PushMode,
  type PushSender,
  pushMessage,
  type SimulatedFields,
  simulatedMessage,
  simulatedPush,
  simulatedVerification,
} from '../../src/demo/weixin/message-push.ts';
import { createForward } from '../../src/ingest/forward.ts';
import { pushRoutes } from '../../src/ingest/push-routes.ts';
import type { PushEvent, PushParts } from '../../src/ingest/receive-push.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { HOUR, iso, MINUTE, SECOND } from '../../src/time.ts';
import type { Account } from '../../src/weixin/credentials/account.ts';
import { type TestClock, testClock } from '../support/clock.ts';
import { startTestHandler, type TestHandler } from '../support/handler.ts';
import { APP_ID, OTHER_APP_ID, testAccount } from '../support/jobs.ts';
import {
  COMPONENT_ID,
  FORMATS,
  MODES,
  PUSH_TOKEN,
  pushSender,
  pushSettings,
  type RecordedEvents,
  recordEvents,
  testComponent,
} from '../support/push.ts';
import { testDoor, testLanes } from '../support/queue.ts';
import { openTestRedis } from '../support/redis.ts';

const CLOUD_ID = 'wx00000000000c10dd';
const SILENT_ID = 'wx5115115115115115';
const ACCOUNTS: readonly Account[] = [
  { ...testAccount(APP_ID), push: { type: 'signed', settings: pushSettings() } },
  { ...testAccount(OTHER_APP_ID), push: { type: 'signed', settings: pushSettings({ mustBeEncrypted: true }) } },
  { ...testAccount(CLOUD_ID), push: { type: 'cloud' } },
  testAccount(SILENT_ID),
];
const never = new AbortController().signal;
/** No test is about how fast this machine is. */
const PATIENT_MS = 60 * SECOND;

let parts: AsyncDisposableStack;
let clock: TestClock;
let admitted: MediaJob[];
let events: RecordedEvents;
let lines: [level: string, facts: object, message: string][];
let observed: PushEvent[];

beforeEach(() => {
  parts = new AsyncDisposableStack();
  clock = testClock();
  admitted = [];
  events = recordEvents();
  lines = [];
  observed = [];
});

afterEach(() => parts.disposeAsync());

interface Answer {
  readonly status: number;
  readonly body: string;
  readonly headers: Headers;
}

interface Pushes {
  readonly url: string;
  readonly app: FastifyInstance;
  get(path: string, query: Readonly<Record<string, string>>): Promise<Answer>;
  post(path: string, fields: SimulatedFields, sender?: PushSender): Promise<Answer>;
  send(path: string, init: RequestInit): Promise<Answer>;
}

async function startPushes(more: Partial<PushParts> = {}): Promise<Pushes> {
  const write = (level: string) => (facts: object, message: string) => void lines.push([level, facts, message]);
  const app = fastify();
  parts.defer(() => app.close());
  app.register(
    pushRoutes({
      accounts: { find: (appId) => ACCOUNTS.find((account) => account.appId === appId) },
      components: [testComponent()],
      admit: async (jobs) => {
        admitted.push(...jobs);
        return jobs.map(() => 'accepted');
      },
      componentEvents: events,
      now: clock.now,
      log: { info: write('info'), warn: write('warn'), error: write('error') } as PushParts['log'],
      observe: (event) => void observed.push(event),
      admitTotalMs: PATIENT_MS,
      ...more,
    }),
  );
  await app.listen({ host: '127.0.0.1', port: 0 });
  const url = `http://127.0.0.1:${(app.server.address() as AddressInfo).port}`;
  const send = async (path: string, init: RequestInit): Promise<Answer> => {
    const response = await fetch(`${url}${path}`, init);
    return { status: response.status, body: await response.text(), headers: response.headers };
  };
  return {
    url,
    app,
    send,
    get: (path, query) => send(`${path}?${new URLSearchParams(query)}`, {}),
    post: (path, fields, sender = pushSender()) => {
      const { query, headers, body } = simulatedPush(fields, sender, clock.now());
      return send(`${path}?${new URLSearchParams(query)}`, { method: 'POST', headers, body });
    },
  };
}

function message(type: string, fields: SimulatedFields = {}): SimulatedFields {
  return simulatedMessage(type, fields, clock.now());
}

const image = (MediaId = 'MEDIA'): SimulatedFields => message('image', { MediaId, PicUrl: 'http://x' });

const KINDS: readonly [type: string, SimulatedFields, Readonly<Record<string, string | undefined>>][] = [
  ['text', { Content: 'hello' }, {}],
  ['image', { MediaId: 'A', PicUrl: 'http://x' }, { A: 'image' }],
  ['voice', { MediaId: 'A', Format: 'amr', MediaId16K: 'B' }, { A: 'voice', B: 'voice' }],
  ['video', { MediaId: 'A', ThumbMediaId: 'B' }, { A: 'video', B: 'thumb' }],
  ['shortvideo', { MediaId: 'A', ThumbMediaId: 'B' }, { A: 'video', B: 'thumb' }],
  ['miniprogrampage', { Title: 'x', ThumbMediaId: 'B' }, { B: 'thumb' }],
  ['event', { Event: 'pic_sysphoto', SendPicsInfo: { Count: 1, PicList: { item: { PicMd5Sum: 'x' } } } }, {}],
  ['sticker', { MediaId: 'A' }, { A: undefined }],
];

describe.each(MODES.flatMap((mode) => FORMATS.map((format) => ({ mode, format }))))(
  'pushes in $mode mode as $format',
  ({ mode, format }) => {
    test.each(KINDS)('%s: its media are queued, then it is taken', async (type, fields, expected) => {
      const { post } = await startPushes();
      const pushed = message(type, fields);
      const answer = await post(`/weixin/${APP_ID}`, pushed, pushSender({ mode, format }));
      expect(answer).toMatchObject({ status: 200, body: 'success' });
      expect(Object.fromEntries(admitted.map(({ mediaId, kind }) => [mediaId, kind]))).toEqual(expected);
      for (const job of admitted)
        expect(job).toMatchObject({
          v: 1,
          appId: APP_ID,
          receivedAt: '2026-06-15T12:00:00.000Z',
          source: { messageId: String(pushed['MsgId']), openId: pushed['FromUserName'] },
        });
      expect(observed).toEqual([
        { result: admitted.length > 0 ? 'queued' : 'no-media', status: 200, media: admitted.length, appId: APP_ID },
      ]);
      expect(lines).toEqual([]);
    });
  },
);

test('on a real queue a message that is pushed again changes nothing', async () => {
  const corner = parts.use(await openTestRedis());
  const lanes = testLanes(corner);
  parts.defer(() => lanes.close());
  const door = testDoor(corner, lanes, clock);
  const { post } = await startPushes({ admit: door.admitEach });
  const video = message('video', { MediaId: 'A', ThumbMediaId: 'B' });
  for (let pushed = 0; pushed < 3; pushed += 1) expect((await post(`/weixin/${APP_ID}`, video)).body).toBe('success');
  const lane = lanes.lane(laneOf(APP_ID));
  const jobs = await Promise.all(['A', 'B'].map((mediaId) => lane.peek(`${APP_ID}-${mediaId}`)));
  expect(jobs).toMatchObject([{ state: 'prioritized' }, { state: 'prioritized' }]);
  expect(observed.map(({ result, media }) => [result, media])).toEqual(Array(3).fill(['queued', 2]));
});

describe('the answer', () => {
  test.each(['/weixin/wx0123456789abcdef', '/weixin/wxffffffffffffffff'])(
    'of %s is plain text that nobody keeps',
    async (path) => {
      const { headers } = await (await startPushes()).get(path, simulatedVerification(pushSender(), clock.now()));
      expect(headers.get('content-type')).toBe('text/plain; charset=utf-8');
      expect(headers.get('x-content-type-options')).toBe('nosniff');
      expect(headers.get('cache-control')).toBe('no-store');
    },
  );

  test.each([
    APP_ID,
    OTHER_APP_ID,
    COMPONENT_ID,
    `component/${COMPONENT_ID}`,
    `component/${COMPONENT_ID}/${APP_ID}`,
    `component/${COMPONENT_ID}/$APPID$`,
  ])('to the check of /weixin/%s is the echostr', async (path) => {
    const { get } = await startPushes();
    const query = { ...simulatedVerification(pushSender(), clock.now()), echostr: '<b>1&2</b>' };
    expect(await get(`/weixin/${path}`, query)).toMatchObject({ status: 200, body: '<b>1&2</b>' });
    expect(observed).toMatchObject([{ result: 'verified' }]);
  });
});

describe('what is refused', () => {
  test.each<[string, string, PushMode, Partial<PushSender>, number, RegExp]>([
    ['a wrong token', APP_ID, 'plaintext', { token: 'x' }, 403, /wrong signature/],
    ['a wrong token', APP_ID, 'safe', { token: 'x' }, 403, /wrong msg_signature/],
    ['the key of another account', APP_ID, 'safe', { encodingAesKey: 'A'.repeat(43) }, 403, /^encrypted, /],
    ['the appId of another account', APP_ID, 'safe', { appId: OTHER_APP_ID }, 403, /of another appId/],
    ['plaintext where it must be encrypted', OTHER_APP_ID, 'plaintext', {}, 403, /not encrypted/],
    ['no header in Cloud Run', CLOUD_ID, 'plaintext', {}, 403, /x-wx-sources/],
    ['plaintext to a platform', COMPONENT_ID, 'plaintext', {}, 403, /not encrypted/],
    [
      'the appId of an app to its platform',
      `component/${COMPONENT_ID}/${APP_ID}`,
      'safe',
      { appId: APP_ID },
      403,
      /another/,
    ],
    ['a message to the event address of a platform', COMPONENT_ID, 'safe', { appId: COMPONENT_ID }, 400, /\$APPID\$/],
  ])('%s, to %s in %s mode', async (_name, path, mode, sender, status, reason) => {
    const { post } = await startPushes();
    const answer = await post(`/weixin/${path}`, image(), pushSender({ mode, ...sender }));
    expect(answer).toMatchObject({ status, body: status === 400 ? 'bad request\n' : 'forbidden\n' });
    expect(lines).toEqual([
      ['warn', { appId: expect.any(String), reason: expect.stringMatching(reason) }, 'a push is refused'],
    ]);
    expect(observed).toMatchObject([{ result: 'refused', status, media: 0 }]);
    expect([admitted, events.kept]).toEqual([[], []]);
  });

  test('a push that is sent again an hour later', async () => {
    const { send } = await startPushes();
    const { query, headers, body } = simulatedPush(image(), pushSender(), clock.now());
    const again = (): Promise<Answer> =>
      send(`/weixin/${APP_ID}?${new URLSearchParams(query)}`, { method: 'POST', headers, body });
    expect((await again()).status).toBe(200);
    clock.advance(60 * MINUTE);
    expect((await again()).status).toBe(403);
    expect(admitted).toHaveLength(1);
  });

  test.each<[string, string | Buffer<ArrayBuffer>, number]>([
    ['nothing', '', 400],
    ['a document type', '<!DOCTYPE xml [<!ENTITY a "b">]><xml><MediaId>&a;</MediaId></xml>', 400],
    ['levels without end', '<a>'.repeat(80_000), 400],
    ['broken UTF-8', Buffer.from([0x3c, 0xff]), 400],
    ['256 KiB', ' '.repeat(256 * 1024), 400],
    ['a byte more than 256 KiB', ' '.repeat(256 * 1024 + 1), 413],
    ['a hundred times that', ' '.repeat(25 * 1024 * 1024), 413],
  ])('%s', async (_name, body, status) => {
    const { send } = await startPushes();
    const { query } = simulatedPush(image(), pushSender({ mode: 'plaintext' }), clock.now());
    const answer = await send(`/weixin/${APP_ID}?${new URLSearchParams(query)}`, { method: 'POST', body });
    expect(answer.status).toBe(status);
    expect(admitted).toEqual([]);
  });

  test('parameters that come twice', async () => {
    const { send } = await startPushes();
    const { query, body } = simulatedPush(image(), pushSender(), clock.now());
    const twice = `${new URLSearchParams(query)}&msg_signature=${query['msg_signature']}`;
    expect((await send(`/weixin/${APP_ID}?${twice}`, { method: 'POST', body })).status).toBe(403);
  });

  test('each reason is told once a minute', async () => {
    const { post, get } = await startPushes();
    const refused = (): Promise<Answer> => post(`/weixin/${APP_ID}`, image(), pushSender({ token: 'x' }));
    for (let pushed = 0; pushed < 3; pushed += 1) await refused();
    await get(`/weixin/${APP_ID}`, {});
    expect(lines).toHaveLength(2);
    clock.advance(MINUTE);
    await refused();
    expect(lines).toHaveLength(3);
    expect(observed).toHaveLength(5);
  });
});

describe('an address of nobody', () => {
  test.each([
    'wxffffffffffffffff',
    SILENT_ID,
    'x',
    '__proto__',
    `component/${APP_ID}`,
    `component/${APP_ID}/${APP_ID}`,
  ])('/weixin/%s is not found, and told once a minute', async (path) => {
    const { post } = await startPushes();
    for (let pushed = 0; pushed < 2; pushed += 1) {
      expect(await post(`/weixin/${path}`, image())).toMatchObject({ status: 404, body: 'not found\n' });
    }
    expect(lines).toEqual([
      ['info', { appId: expect.stringMatching(/^wx[0-9a-f]{16}$|^\(none\)$/) }, expect.any(String)],
    ]);
    expect(observed).toEqual(Array(2).fill({ result: 'unknown-app', status: 404, media: 0 }));
  });

  test('a message of a platform for what is no app is not found', async () => {
    const { post } = await startPushes();
    const answer = await post(`/weixin/component/${COMPONENT_ID}/x`, image(), pushSender({ appId: COMPONENT_ID }));
    expect(answer.status).toBe(404);
    expect(admitted).toEqual([]);
  });
});

describe('while the queue', () => {
  test('is away, a message is pushed again, and one without media is taken', async () => {
    const { post } = await startPushes({ admit: () => Promise.reject(new Error('Redis is away')) });
    expect(await post(`/weixin/${APP_ID}`, image())).toMatchObject({ status: 503, body: 'try again\n' });
    expect(await post(`/weixin/${APP_ID}`, message('text'))).toMatchObject({ status: 200, body: 'success' });
    expect(lines).toMatchObject([['warn', { appId: APP_ID }, expect.any(String)]]);
    expect(observed).toMatchObject([{ result: 'unavailable', media: 0 }, { result: 'no-media' }]);
  });

  test('does not answer, the same', async () => {
    const { post } = await startPushes({ admit: () => new Promise(() => undefined), admitTotalMs: 50 });
    expect((await post(`/weixin/${APP_ID}`, image())).status).toBe(503);
  });

  test('is away for a moment, nothing is lost: WeChat pushes three times', async () => {
    let calls = 0;
    const { url } = await startPushes({
      admit: async (jobs) => {
        calls += 1;
        if (calls < 3) throw new Error('Redis is away');
        admitted.push(...jobs);
        return jobs.map(() => 'accepted');
      },
    });
    const patience = { answerMs: PATIENT_MS, pauseMs: 1, tries: 3 };
    const outcome = await pushMessage(`${url}/weixin/${APP_ID}`, image(), pushSender(), patience, clock.now, never);
    expect(outcome.answers.map(({ status }) => status)).toEqual([503, 503, 200]);
    expect(admitted).toMatchObject([{ mediaId: 'MEDIA' }]);
  });

  test('does not take a media, the answer is no success, and the log says why', async () => {
    const { post } = await startPushes({ admit: async () => ['accepted', { mistakes: ['mediaId: is none'] }] });
    const video = message('video', { MediaId: 'A', ThumbMediaId: 'a/b' });
    expect(await post(`/weixin/${APP_ID}`, video)).toMatchObject({ status: 500, body: 'failed\n' });
    const facts = { appId: APP_ID, messageId: expect.stringMatching(/^\d{19}$/), mistakes: ['mediaId: is none'] };
    expect(lines).toEqual([['error', facts, expect.any(String)]]);
    expect(observed).toMatchObject([{ result: 'rejected', status: 500, media: 1 }]);
  });

  test('is behind the time of a message, its media counts as of now', async () => {
    const { post } = await startPushes();
    const ahead = simulatedMessage('image', { MediaId: 'A' }, clock.now() + HOUR);
    expect((await post(`/weixin/${APP_ID}`, ahead)).body).toBe('success');
    expect(admitted).toMatchObject([{ mediaId: 'A', receivedAt: iso(clock.now()) }]);
  });

  test('knows a media already, it is taken', async () => {
    const { post } = await startPushes({ admit: async () => ['duplicate'] });
    expect((await post(`/weixin/${APP_ID}`, image())).body).toBe('success');
  });
});

test.each([
  ['of an unknown app', '/weixin/wxffffffffffffffff', {}, 404],
  ['without a time', `/weixin/${APP_ID}`, {}, 403],
  ['with a wrong signature', `/weixin/${APP_ID}`, { signature: 'f'.repeat(40) }, 403],
  ['that should be encrypted', `/weixin/component/${COMPONENT_ID}`, {}, 403],
])('no body is read of a push %s', async (_what, path, wrong, status) => {
  const { url } = await startPushes();
  const timed = path.startsWith('/weixin/component') || 'signature' in wrong;
  const { query } = simulatedPush(image(), pushSender({ mode: 'plaintext' }), clock.now());
  const parameters = new URLSearchParams(timed ? { ...query, ...wrong } : {});
  const { hostname, port } = new URL(url);
  const socket = createConnection({ host: hostname, port: Number(port) });
  // All of the head, and nothing of the body that it announces.
  socket.write(`POST ${path}?${parameters} HTTP/1.1\r\nhost: x\r\ncontent-length: 200000\r\n\r\n`);
  const [answer] = (await once(socket, 'data')) as [Buffer];
  socket.destroy();
  expect(answer.toString()).toMatch(new RegExp(`^HTTP/1.1 ${status} `));
});

test('strangers fill neither the log nor what is remembered of it', async () => {
  const { get } = await startPushes();
  for (let index = 0; index < 50; index += 1) {
    const appId = `wx${String(index).padStart(16, '0')}`;
    expect((await get(`/weixin/${appId}`, simulatedVerification(pushSender(), clock.now()))).status).toBe(404);
  }
  expect(lines).toHaveLength(1);
});

test('an event of a platform that comes to its address for messages is kept', async () => {
  const { post } = await startPushes();
  const ticket = { InfoType: 'component_verify_ticket', ComponentVerifyTicket: 'ticket@@@x' };
  const sender = pushSender({ appId: COMPONENT_ID });
  expect((await post(`/weixin/component/${COMPONENT_ID}/${APP_ID}`, ticket, sender)).body).toBe('success');
  expect(events.kept).toMatchObject([['ticket', COMPONENT_ID, 'ticket@@@x', clock.now()]]);
});

describe('WeChat Cloud Run', () => {
  test.each(['{"action":"CheckContainerPath"}', '<xml><action>CheckContainerPath</action></xml>'])(
    '%s is answered',
    async (body) => {
      const { send } = await startPushes();
      expect(await send(`/weixin/${CLOUD_ID}`, { method: 'POST', body })).toMatchObject({
        status: 200,
        body: 'success',
      });
      expect(observed).toMatchObject([{ result: 'checked', appId: CLOUD_ID }]);
    },
  );

  test.each(FORMATS)('a message as %s is queued', async (format) => {
    const { send } = await startPushes();
    const { headers, body } = simulatedPush(image(), pushSender({ mode: 'plaintext', format }), clock.now());
    const answer = await send(`/weixin/${CLOUD_ID}`, {
      method: 'POST',
      headers: { ...headers, 'x-wx-sources': 'wx' },
      body,
    });
    expect(answer.body).toBe('success');
    expect(admitted).toMatchObject([{ appId: CLOUD_ID, mediaId: 'MEDIA' }]);
  });
});

describe('a platform', () => {
  const sender = pushSender({ appId: COMPONENT_ID });
  const event = (InfoType: string, fields: SimulatedFields): SimulatedFields => ({
    AppId: COMPONENT_ID,
    CreateTime: clock.now() / SECOND,
    InfoType,
    ...fields,
  });
  const TICKET: SimulatedFields = { ComponentVerifyTicket: 'ticket@@@SECRET' };

  test.each([`/weixin/component/${COMPONENT_ID}`, `/weixin/${COMPONENT_ID}`])(
    'is pushed its events at %s',
    async (path) => {
      const { post } = await startPushes();
      const authorized = { AuthorizerAppid: OTHER_APP_ID, AuthorizationCode: 'code', PreAuthCode: 'x' };
      for (const pushed of [
        event('component_verify_ticket', TICKET),
        event('authorized', authorized),
        event('updateauthorized', authorized),
        event('unauthorized', { AuthorizerAppid: OTHER_APP_ID }),
        event('notify_third_fasteregister', {}),
      ])
        expect(await post(path, pushed, sender)).toMatchObject({ status: 200, body: 'success' });
      expect(events.kept).toEqual([
        ['ticket', COMPONENT_ID, 'ticket@@@SECRET', clock.now()],
        ['authorized', COMPONENT_ID, OTHER_APP_ID, 'code', clock.now()],
        ['authorized', COMPONENT_ID, OTHER_APP_ID, 'code', clock.now()],
        ['withdrawn', COMPONENT_ID, OTHER_APP_ID, clock.now()],
      ]);
      expect(lines).toMatchObject([['info', { infoType: 'notify_third_fasteregister' }, expect.any(String)]]);
      expect(observed).toEqual(Array(5).fill({ result: 'event', status: 200, media: 0, appId: COMPONENT_ID }));
    },
  );

  test.each<[string, () => Promise<void>, number]>([
    ['rejects', () => Promise.reject(new Error('Redis is away')), PATIENT_MS],
    ['does not answer', () => new Promise(() => undefined), 50],
  ])('a ticket is pushed again while what keeps it %s', async (_name, keep, admitTotalMs) => {
    const { post } = await startPushes({ componentEvents: recordEvents(keep), admitTotalMs });
    const answer = await post(`/weixin/${COMPONENT_ID}`, event('component_verify_ticket', TICKET), sender);
    expect(answer.status).toBe(503);
    expect(JSON.stringify(lines)).not.toContain('SECRET');
  });

  test('a message of an app is queued for the app, which is told of first, and not each time', async () => {
    const order: string[] = [];
    const { post } = await startPushes({
      componentEvents: recordEvents(async () => void order.push('seen')),
      admit: async (jobs) => {
        order.push(...jobs.map(({ appId, mediaId }) => `${appId} ${mediaId}`));
        return jobs.map(() => 'accepted');
      },
    });
    const path = `/weixin/component/${COMPONENT_ID}/${OTHER_APP_ID}`;
    for (const mediaId of ['A', 'B']) expect((await post(path, image(mediaId), sender)).body).toBe('success');
    expect(order).toEqual(['seen', `${OTHER_APP_ID} A`, `${OTHER_APP_ID} B`]);
    clock.advance(10 * MINUTE);
    await post(path, image('C'), sender);
    expect(order.slice(3)).toEqual(['seen', `${OTHER_APP_ID} C`]);
    expect(observed).toEqual(Array(3).fill({ result: 'queued', status: 200, media: 1, appId: OTHER_APP_ID }));
  });

  test('a message of an app that can not be told of is pushed again', async () => {
    let away = true;
    const { post } = await startPushes({
      componentEvents: recordEvents(async () => {
        if (away) throw new Error('Redis is away');
      }),
    });
    const path = `/weixin/component/${COMPONENT_ID}/${OTHER_APP_ID}`;
    expect((await post(path, image(), sender)).status).toBe(503);
    expect(admitted).toEqual([]);
    away = false;
    expect((await post(path, image(), sender)).status).toBe(200);
    expect(admitted).toHaveLength(1);
  });

  test('what is refused at the address of an app counts for the platform, whatever app that names', async () => {
    const { post } = await startPushes();
    await post(`/weixin/component/${COMPONENT_ID}/wxffffffffffffffff`, image(), pushSender({ token: 'x' }));
    expect(observed).toMatchObject([{ result: 'refused', appId: COMPONENT_ID }]);
    expect(lines).toMatchObject([['warn', { appId: COMPONENT_ID }, expect.any(String)]]);
  });
});

describe("the operator's own handler", () => {
  let handler: TestHandler;

  beforeEach(async () => {
    handler = parts.use(await startTestHandler());
  });

  function forwardTo(template: string, totalMs = PATIENT_MS): Pick<PushParts, 'forward'> {
    const forward = createForward(
      template,
      { warn: (facts: object, text: string) => void lines.push(['warn', facts, text]) } as PushParts['log'],
      totalMs,
    );
    parts.defer(() => forward.close());
    return { forward };
  }

  test('gets a push as it came, once its media are queued, and its answer is the one', async () => {
    const { send } = await startPushes(forwardTo(`${handler.url}/{appId}`));
    let queuedBefore: number | undefined;
    handler.answer = (response) => {
      queuedBefore = admitted.length;
      response.writeHead(201, { 'content-type': 'application/xml' }).end('<xml>好</xml>');
    };
    const { query, body } = simulatedPush(image(), pushSender(), clock.now());
    const rawQuery = `${new URLSearchParams(query)}&odd=%7e+%20&odd`;
    const headers = { 'content-type': 'text/xml; charset=x', 'x-wx-openid': 'o', cookie: 'a=b', authorization: 'x' };
    const answer = await send(`/weixin/${APP_ID}?${rawQuery}`, { method: 'POST', headers, body });
    expect(answer).toMatchObject({ status: 201, body: '<xml>好</xml>' });
    expect(answer.headers.get('content-type')).toBe('application/xml');
    expect(queuedBefore).toBe(1);
    const [request] = handler.requests;
    expect(request).toMatchObject({ method: 'POST', url: `/${APP_ID}?${rawQuery}`, body: Buffer.from(body) });
    expect(request?.headers).toMatchObject({ 'content-type': 'text/xml; charset=x', 'x-wx-openid': 'o' });
    expect(request?.headers).not.toHaveProperty('cookie');
    expect(request?.headers).not.toHaveProperty('authorization');
  });

  test('gets messages without media, and the events of a platform', async () => {
    const { post } = await startPushes(forwardTo(`${handler.url}/{appId}`));
    const sender = pushSender({ appId: COMPONENT_ID });
    await post(`/weixin/${APP_ID}`, message('text'));
    await post(`/weixin/${COMPONENT_ID}`, { InfoType: 'component_verify_ticket', ComponentVerifyTicket: 'x' }, sender);
    await post(`/weixin/${COMPONENT_ID}`, { InfoType: 'other' }, sender);
    await post(`/weixin/component/${COMPONENT_ID}/${OTHER_APP_ID}`, message('text'), sender);
    expect(handler.requests.map(({ url }) => url.split('?', 1)[0])).toEqual(
      [APP_ID, COMPONENT_ID, COMPONENT_ID, OTHER_APP_ID].map((appId) => `/${appId}`),
    );
  });

  test('gets nothing that is refused, not known, a check, or not queued, but what is not taken', async () => {
    const { post, get, send } = await startPushes({
      ...forwardTo(handler.url),
      admit: async ([job]) => {
        if (job?.mediaId === 'AWAY') throw new Error('Redis is away');
        return [{ mistakes: ['mediaId: is none'] }];
      },
      componentEvents: recordEvents(() => Promise.reject(new Error('Redis is away'))),
    });
    await get(`/weixin/${APP_ID}`, simulatedVerification(pushSender(), clock.now()));
    await send(`/weixin/${CLOUD_ID}`, { method: 'POST', body: '{"action":"CheckContainerPath"}' });
    await post(`/weixin/${APP_ID}`, message('text'), pushSender({ token: 'x' }));
    await post(`/weixin/wxffffffffffffffff`, message('text'));
    await post(`/weixin/${APP_ID}`, image('AWAY'));
    await post(`/weixin/${APP_ID}`, image('a/b'));
    await post(
      `/weixin/${COMPONENT_ID}`,
      { InfoType: 'component_verify_ticket', ComponentVerifyTicket: 'x' },
      pushSender({ appId: COMPONENT_ID }),
    );
    expect(observed.map(({ status }) => status)).toEqual([200, 200, 403, 404, 503, 200, 503]);
    expect(handler.requests).toHaveLength(1);
  });

  test('has what Redis has left of the time', async () => {
    const { post } = await startPushes({
      ...forwardTo(handler.url, 2_000),
      admit: async (jobs) => {
        await sleep(1_800);
        return jobs.map(() => 'accepted' as const);
      },
    });
    handler.answer = () => undefined;
    const startedAt = performance.now();
    expect((await post(`/weixin/${APP_ID}`, image())).status).toBe(504);
    // Not 1,800 and then 2,000.
    expect(performance.now() - startedAt).toBeLessThan(3_600);
  });

  test('gets what is signed and can not be read; without one that is a 400', async () => {
    const broken = {
      ...simulatedPush({ MsgType: 'x' }, pushSender({ mode: 'plaintext' }), clock.now()),
      body: '<xml>',
    };
    const path = `/weixin/${APP_ID}?${new URLSearchParams(broken.query)}`;
    const { send } = await startPushes(forwardTo(handler.url));
    expect(await send(path, { method: 'POST', body: broken.body })).toMatchObject({ status: 200, body: 'success' });
    expect(handler.requests.map(({ body }) => body.toString())).toEqual([broken.body]);
    const alone = await startPushes();
    expect((await alone.send(path, { method: 'POST', body: broken.body })).status).toBe(400);
    expect(observed.map(({ result }) => result)).toEqual(['unreadable', 'unreadable']);
    expect(lines.map(([level]) => level)).toEqual(['error', 'error']);
  });

  test('is late or away: the media is queued, and WeChat pushes again', async () => {
    const late = await startPushes(forwardTo(handler.url, 300));
    handler.answer = () => undefined;
    expect((await late.post(`/weixin/${APP_ID}`, image('A'))).status).toBe(504);
    await handler.close();
    const away = await startPushes(forwardTo(handler.url));
    expect((await away.post(`/weixin/${APP_ID}`, image('B'))).status).toBe(502);
    expect(admitted).toMatchObject([{ mediaId: 'A' }, { mediaId: 'B' }]);
    expect(observed).toMatchObject([
      { result: 'queued', status: 504 },
      { result: 'queued', status: 502 },
    ]);
  });
});

describe('whatever a request is', () => {
  test.each([
    'text/xml',
    'application/json',
    'multipart/form-data',
    'application/x-www-form-urlencoded',
    'a',
    ';;;',
    'text/xml; charset=gbk',
  ])('a Content-Type of %s changes nothing', async (contentType) => {
    const { send } = await startPushes();
    const { query, body } = simulatedPush(image(), pushSender(), clock.now());
    const headers = { 'content-type': contentType };
    const answer = await send(`/weixin/${APP_ID}?${new URLSearchParams(query)}`, { method: 'POST', headers, body });
    expect(answer.body).toBe('success');
  });

  test('it may have neither a type nor a length', async () => {
    const { url } = await startPushes();
    const { query, body } = simulatedPush(image(), pushSender(), clock.now());
    const { promise, resolve, reject } = Promise.withResolvers<number | undefined>();
    const request = httpRequest(
      `${url}/weixin/${APP_ID}?${new URLSearchParams(query)}`,
      { method: 'POST' },
      (response) => resolve(response.resume().statusCode),
    );
    request.on('error', reject);
    request.write(body.slice(0, 10));
    request.end(body.slice(10));
    expect(await promise).toBe(200);
  });

  test.each(['HEAD', 'PUT', 'DELETE', 'OPTIONS'])('%s is not found', async (method) => {
    const { send } = await startPushes();
    expect((await send(`/weixin/${APP_ID}`, { method })).status).toBe(404);
  });

  test('routes beside these keep their own parser and their own errors', async () => {
    const { app, send, url } = await startPushes();
    expect(url).not.toBe('');
    expect(app.hasContentTypeParser('application/json')).toBe(true);
    expect((await send('/elsewhere', {})).headers.get('content-type')).toMatch(/json/);
  });

  test('a defect of ours is 500 without a word, and logged', async () => {
    const { post } = await startPushes({
      accounts: {
        find: () => {
          throw new TypeError('a defect');
        },
      },
    });
    expect(await post(`/weixin/${APP_ID}`, image())).toMatchObject({
      status: 500,
      body: expect.not.stringContaining('defect'),
    });
    expect(lines).toMatchObject([['error', { err: { message: 'a defect' } }, expect.any(String)]]);
  });

  test('no line of the log holds a body, a sender, a signature or a secret', async () => {
    const { post, get } = await startPushes({ admit: () => Promise.reject(new Error('Redis is away')) });
    const person = { FromUserName: 'oPERSON', Content: 'PRIVATE', MediaId: 'PRIVATE' };
    for (const sender of [
      pushSender(),
      pushSender({ token: 'x' }),
      pushSender({ appId: 'wrong' }),
      pushSender({ mode: 'plaintext', token: 'x' }),
    ])
      await post(`/weixin/${APP_ID}`, message('image', person), sender);
    await get(`/weixin/${APP_ID}`, {
      ...simulatedVerification(pushSender({ token: 'x' }), clock.now()),
      echostr: 'PRIVATE',
    });
    expect(lines.length).toBeGreaterThan(3);
    const text = JSON.stringify(lines, (_key, value: unknown) => (value instanceof Error ? value.message : value));
    expect(text).not.toMatch(/PERSON|PRIVATE|[0-9a-f]{40}/);
    expect(text).not.toContain(PUSH_TOKEN);
  });
});
