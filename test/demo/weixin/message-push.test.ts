import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type PushOutcome,
  type PushPatience,
  pushMessage,
  simulatedMessage,
  simulatedPush,
  WEIXIN_PATIENCE,
} from '../../../src/demo/weixin/message-push.ts';
import { pushSender } from '../../support/push.ts';

const NOW = 1_417_761_449_000;
const QUICK: PushPatience = { answerMs: 30_000, pauseMs: 1, tries: 3 };
const never = new AbortController().signal;

describe('what is pushed', () => {
  const image = simulatedMessage('image', { PicUrl: 'http://mmbiz.qpic.cn/x', MediaId: 'ID' }, NOW);

  test('has the shape that WeChat gives it', () => {
    const { body, query } = simulatedPush(image, pushSender({ mode: 'plaintext' }), NOW);
    expect(body.replace(/<MsgId>\d{19}</, '<MsgId>…<')).toBe(
      '<xml><ToUserName><![CDATA[gh_97417a04a28d]]></ToUserName><FromUserName><![CDATA[o9AgO5Kd5ggOC-bXrbNODIiE3bGY]]></FromUserName><CreateTime>1417761449</CreateTime><MsgType><![CDATA[image]]></MsgType><PicUrl><![CDATA[http://mmbiz.qpic.cn/x]]></PicUrl><MediaId><![CDATA[ID]]></MediaId><MsgId>…</MsgId></xml>',
    );
    expect(Object.keys(query)).toEqual(['signature', 'timestamp', 'nonce', 'openid']);
  });

  test('has a bare MsgId of 64 bits, whose upper half is the time', () => {
    const { body } = simulatedPush(image, pushSender({ mode: 'plaintext', format: 'json' }), NOW);
    const [, digits = ''] = /"MsgId":(\d{19})\}$/.exec(body) ?? [];
    expect(Number(BigInt(digits) >> 32n)).toBe(NOW / 1000);
  });

  test('shows nothing but the addressee in safe mode, and all of it in compatible mode', () => {
    const safe = simulatedPush(image, pushSender({ mode: 'safe' }), NOW).body;
    expect(safe).toMatch(
      /^<xml><ToUserName>.*<\/ToUserName><Encrypt><!\[CDATA\[[A-Za-z0-9+/=]+\]\]><\/Encrypt><\/xml>$/,
    );
    expect(simulatedPush(image, pushSender({ mode: 'compatible' }), NOW).body).toMatch(/<MediaId>.*<Encrypt>/);
  });

  test('is never encrypted to the same letters twice', () => {
    const bodies = [1, 2].map(() => simulatedPush(image, pushSender(), NOW).body);
    expect(bodies[0]).not.toBe(bodies[1]);
  });
});

describe('pushing', () => {
  let server: Server;
  let url: string;
  /** Answers, one a push; `undefined` is none. The last is given for ever. */
  let answers: ([status: number, body: string] | undefined)[];
  let pushes: string[];

  beforeEach(async () => {
    pushes = [];
    server = createServer((request, response) => {
      const answer = answers[Math.min(pushes.length, answers.length - 1)];
      pushes.push(request.url ?? '');
      if (answer !== undefined) response.writeHead(answer[0]).end(answer[1]);
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', resolve);
    await promise;
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/weixin`;
  });

  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });

  function push(patience = QUICK, signal = never): Promise<PushOutcome> {
    return pushMessage(url, simulatedMessage('text', { Content: 'x' }, NOW), pushSender(), patience, () => NOW, signal);
  }

  test.each(['success', '', '<xml><ToUserName/></xml>', '{"ToUserName":"x"}'])(
    'ends with the answer %j',
    async (body) => {
      answers = [[200, body]];
      expect(await push()).toEqual({ handled: true, answers: [{ status: 200, body }] });
    },
  );

  test.each<[string, [number, string]]>([
    ['an error', [503, '']],
    ['an error that says success', [500, 'success']],
    ['other words', [200, 'ok']],
  ])('is repeated after %s, three times in all, each signed anew', async (_name, answer) => {
    answers = [answer];
    const { handled, answers: seen } = await push();
    expect({ handled, seen: seen.length, pushes: new Set(pushes).size }).toEqual({
      handled: false,
      seen: 3,
      pushes: 3,
    });
  });

  test('is repeated until it is taken', async () => {
    answers = [
      [503, ''],
      [200, 'success'],
    ];
    expect(await push()).toMatchObject({ handled: true, answers: [{ status: 503 }, { status: 200 }] });
  });

  test('is repeated when no answer comes, or nobody is there', async () => {
    answers = [undefined];
    expect(await push({ ...QUICK, answerMs: 50 })).toMatchObject({ handled: false, answers: [{ status: 0 }, {}, {}] });
    server.closeAllConnections();
    server.close();
    expect(await push()).toMatchObject({ handled: false, answers: [{ status: 0 }, {}, {}] });
  });

  test('ends with its signal', async () => {
    answers = [[503, '']];
    const stop = new AbortController();
    const pushing = push({ ...QUICK, pauseMs: 60_000 }, stop.signal);
    stop.abort(new Error('enough'));
    await expect(pushing).rejects.toThrow();
  });

  test('has the patience of WeChat', () => {
    expect(WEIXIN_PATIENCE).toEqual({ answerMs: 5_000, pauseMs: 5_000, tries: 3 });
  });
});
