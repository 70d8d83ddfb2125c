import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type PushFormat,
  type PushMode,
  simulatedMessage,
  simulatedPush,
  simulatedVerification,
} from '../../../src/demo/weixin/message-push.ts';
import { MINUTE, SECOND } from '../../../src/time.ts';
import { encryptMessage } from '../../../src/weixin/push/message-crypto.ts';
import {
  judgePush,
  PUSH_WINDOW_MS,
  type PushExpectation,
  type PushRequest,
  type PushVerdict,
} from '../../../src/weixin/push/push-request.ts';
import { signatureOf } from '../../../src/weixin/push/signature.ts';
import { APP_ID, OTHER_APP_ID } from '../../support/jobs.ts';
import { FORMATS, MODES, PUSH_TOKEN, pushSender, pushSettings, requestOf } from '../../support/push.ts';
import { V1 } from './vectors.ts';

const NOW = Date.parse('2026-06-15T12:00:00Z');
const SIGNED: PushExpectation = { type: 'signed', settings: pushSettings(), trailer: APP_ID };
const CLOUD: PushExpectation = { type: 'cloud' };

function judge(request: PushRequest, expected: PushExpectation = SIGNED, now = NOW): PushVerdict {
  return judgePush(request, expected, () => now);
}

function refusalOf(...args: Parameters<typeof judge>): string {
  const verdict = judge(...args);
  return verdict.type === 'refused' ? `${verdict.status} ${verdict.reason}` : verdict.type;
}

function imageFrom(mode: PushMode, format: PushFormat, at = NOW, sender = pushSender({ mode, format })): PushRequest {
  return requestOf(simulatedPush(simulatedMessage('image', { MediaId: 'MEDIA' }, at), sender, at));
}

const combinations = MODES.flatMap((mode) => FORMATS.map((format) => ({ mode, format })));

describe('the official example', () => {
  const expected: PushExpectation = {
    type: 'signed',
    settings: pushSettings({ token: V1.token, encodingAesKey: V1.encodingAesKey }),
    trailer: V1.appId,
  };
  const at = (timestamp: string): number => Number(timestamp) * SECOND;

  test('its check of the address is answered with the echostr', () => {
    const request = { method: 'GET', query: V1.verification, headers: {}, body: Buffer.alloc(0) };
    expect(judge(request, expected, at(V1.verification.timestamp))).toEqual({
      type: 'verification',
      echostr: V1.verification.echostr,
    });
  });

  test('its push in plaintext is read', () => {
    const request = { method: 'POST', query: V1.plaintext, headers: {}, body: Buffer.from('{"MsgType":"text"}') };
    expect(judge(request, expected, at(V1.plaintext.timestamp))).toMatchObject({ fields: { MsgType: 'text' } });
  });

  test('its push in safe mode is read', () => {
    const { timestamp, nonce, signature, msgSignature: msg_signature, encrypt } = V1.safe;
    const query = { signature, timestamp, nonce, openid: 'o', encrypt_type: 'aes', msg_signature };
    const body = Buffer.from(JSON.stringify({ ToUserName: 'gh_97417a04a28d', Encrypt: encrypt }));
    expect(judge({ method: 'POST', query, headers: {}, body }, expected, at(timestamp))).toMatchObject({
      type: 'message',
      fields: {
        ToUserName: 'gh_97417a04a28d',
        CreateTime: '1714112445',
        Event: 'debug_demo',
        debug_str: 'hello world',
      },
    });
  });
});

describe.each(combinations)('a push in $mode mode as $format', ({ mode, format }) => {
  test('is read, its MsgId to the last digit', () => {
    const message = simulatedMessage('image', { MediaId: 'MEDIA', PicUrl: 'http://x/?a=1&b=]]>' }, NOW);
    const verdict = judge(requestOf(simulatedPush(message, pushSender({ mode, format }), NOW)));
    const texts = Object.fromEntries(Object.entries(message).map(([name, value]) => [name, String(value)]));
    expect(verdict.type === 'message' ? { ...verdict.fields } : verdict).toEqual(texts);
    expect(Number.isSafeInteger(Number(message['MsgId']))).toBe(false);
  });

  test('is refused with a signature of another token', () => {
    const request = imageFrom(mode, format, NOW, pushSender({ mode, format, token: 'another' }));
    expect(refusalOf(request)).toBe(mode === 'plaintext' ? '403 wrong signature' : '403 wrong msg_signature');
  });

  test.each([
    [-PUSH_WINDOW_MS, 'message'],
    [PUSH_WINDOW_MS, 'message'],
    [-PUSH_WINDOW_MS - SECOND, '403 a timestamp 601 s old'],
    [PUSH_WINDOW_MS + SECOND, '403 a timestamp 601 s ahead'],
    [-3 * 24 * 60 * MINUTE, '403 a timestamp 259200 s old'],
  ])('that was signed %d ms from now: %s', (offsetMs, expected) => {
    expect(refusalOf(imageFrom(mode, format, NOW + offsetMs))).toBe(expected);
  });

  test('is read whatever its Content-Type says', () => {
    expect(judge({ ...imageFrom(mode, format), headers: { 'content-type': 'image/png' } }).type).toBe('message');
  });
});

describe('the check of an address', () => {
  const query = simulatedVerification(pushSender(), NOW);
  const check = (more: Readonly<Record<string, unknown>>, now = NOW): string =>
    refusalOf({ method: 'GET', query: { ...query, ...more }, headers: {}, body: Buffer.alloc(0) }, SIGNED, now);

  test('is passed, also where pushes must be encrypted', () => {
    const settings = pushSettings({ mustBeEncrypted: true });
    const request = { method: 'GET', query, headers: {}, body: Buffer.alloc(0) };
    expect(judge(request, { ...SIGNED, settings })).toEqual({ type: 'verification', echostr: query['echostr'] });
  });

  test.each<[string, Readonly<Record<string, unknown>>, string]>([
    ['a wrong signature', { signature: '0'.repeat(40) }, '403 wrong signature'],
    ['no signature', { signature: undefined }, '403 wrong signature'],
    ['two signatures', { signature: [query['signature'], query['signature']] }, '403 wrong signature'],
    ['another nonce', { nonce: '1' }, '403 wrong signature'],
    ['no nonce', { nonce: undefined }, '403 no nonce'],
    ['two nonces', { nonce: ['1', '2'] }, '403 no nonce'],
    ['an endless nonce', { nonce: '1'.repeat(10_000) }, '403 no nonce'],
    ['no timestamp', { timestamp: '' }, '403 no timestamp'],
    ['a timestamp of words', { timestamp: 'NaN' }, '403 no timestamp'],
    ['a timestamp in hex', { timestamp: '0x6a2fe1b0' }, '403 no timestamp'],
    ['no echostr', { echostr: undefined }, '400 no echostr'],
    ['two echostrs', { echostr: ['1', '2'] }, '400 no echostr'],
  ])('is refused with %s', (_name, more, expected) => {
    expect(check(more)).toBe(expected);
  });

  test('is refused when it comes again later', () => {
    expect(check({}, NOW + PUSH_WINDOW_MS + SECOND)).toBe('403 a timestamp 601 s old');
  });
});

describe('what is encrypted', () => {
  const encrypted = combinations.filter(({ mode }) => mode !== 'plaintext');

  test.each(encrypted)('is refused with the appId of another account ($mode, $format)', ({ mode, format }) => {
    const request = imageFrom(mode, format, NOW, pushSender({ mode, format, appId: OTHER_APP_ID }));
    expect(refusalOf(request)).toBe('403 encrypted, of another appId');
  });

  test.each(encrypted)('is refused with a key of another account ($mode, $format)', ({ mode, format }) => {
    const request = imageFrom(mode, format, NOW, pushSender({ mode, format, encodingAesKey: 'A'.repeat(43) }));
    expect(refusalOf(request)).toMatch(/^403 encrypted, (wrong|of another)/);
  });

  test.each(encrypted)('tells the operator that a key is missing ($mode, $format)', ({ mode, format }) => {
    const { encodingAesKey: _none, ...settings } = pushSettings();
    const verdict = refusalOf(imageFrom(mode, format), { ...SIGNED, settings });
    expect(verdict).toMatch(/^403 .*no encodingAesKey is configured/);
  });

  test.each(encrypted)('must be signed itself, whatever else is ($mode, $format)', ({ mode, format }) => {
    const request = imageFrom(mode, format);
    const { signature } = request.query;
    for (const msg_signature of [undefined, signature, [request.query['msg_signature']], ''])
      expect(refusalOf({ ...request, query: { ...request.query, msg_signature } })).toBe('403 wrong msg_signature');
    const { msg_signature: _none, encrypt_type: _neither, ...clear } = request.query;
    expect(refusalOf({ ...request, query: clear })).toMatch(/^403 encrypted, without a signature/);
  });

  test.each(FORMATS)('counts alone in compatible mode, not the clear fields beside it (%s)', (format) => {
    const request = imageFrom('compatible', format);
    const body = Buffer.from(Buffer.from(request.body).toString().replaceAll('MEDIA', 'FORGED'));
    expect(body.toString()).toContain('FORGED');
    expect(judge({ ...request, body })).toMatchObject({ type: 'message', fields: { MediaId: 'MEDIA' } });
  });

  test.each<[string, string, string]>([
    ['no Encrypt', '<xml><MsgType>image</MsgType></xml>', '400 no Encrypt in it'],
    ['two Encrypts', '<xml><Encrypt>a</Encrypt><Encrypt>b</Encrypt></xml>', '400 no Encrypt in it'],
    ['no XML', '<xml>', '400 XML that is not well-formed'],
    ['nothing', '', '400 empty'],
  ])('is refused with %s', (_name, body, expected) => {
    expect(refusalOf({ ...imageFrom('safe', 'xml'), body: Buffer.from(body) })).toBe(expected);
  });

  test('can not be read when it is no push inside', () => {
    const encrypt = encryptMessage('hello', keyOf(), APP_ID, randomBytes(16));
    const request = imageFrom('safe', 'xml');
    const { timestamp, nonce } = request.query;
    const msg_signature = signatureOf([PUSH_TOKEN, String(timestamp), String(nonce), encrypt]);
    const body = Buffer.from(JSON.stringify({ Encrypt: encrypt }));
    expect(judge({ ...request, query: { ...request.query, msg_signature }, body })).toEqual({
      type: 'unreadable',
      reason: 'neither XML nor JSON',
    });
  });
});

function keyOf(): NonNullable<ReturnType<typeof pushSettings>['encodingAesKey']> {
  const { encodingAesKey } = pushSettings();
  if (encodingAesKey === undefined) throw new Error('no key');
  return encodingAesKey;
}

describe('where pushes must be encrypted', () => {
  const strict: PushExpectation = { ...SIGNED, settings: pushSettings({ mustBeEncrypted: true }) };

  test.each(combinations)('one in $mode mode as $format is judged so', ({ mode, format }) => {
    const expected = mode === 'plaintext' ? /^403 not encrypted/ : /^message$/;
    expect(refusalOf(imageFrom(mode, format), strict)).toMatch(expected);
  });

  test('the clear fields of compatible mode are none', () => {
    const { body, query, ...request } = imageFrom('compatible', 'json');
    const { msg_signature: _none, encrypt_type: _neither, ...clear } = query;
    expect(refusalOf({ ...request, query: clear, body }, strict)).toMatch(/^403 not encrypted/);
  });
});

describe('a push in WeChat Cloud Run', () => {
  const image = (format: PushFormat): PushRequest => ({
    ...imageFrom('plaintext', format),
    query: {},
    headers: { 'x-wx-sources': 'wxdev' },
  });

  test.each(FORMATS)('needs no signature, only the header (%s)', (format) => {
    expect(judge(image(format), CLOUD)).toMatchObject({ type: 'message', fields: { MediaId: 'MEDIA' } });
    expect(refusalOf({ ...image(format), headers: {} }, CLOUD)).toMatch(/^403 no x-wx-sources/);
    expect(refusalOf({ ...image(format), headers: { 'x-wx-sources': '' } }, CLOUD)).toMatch(/^403 no x-wx-sources/);
  });

  test.each([
    '{"action":"CheckContainerPath"}',
    '<xml><action>CheckContainerPath</action></xml>',
    '<xml><action><![CDATA[CheckContainerPath]]></action></xml>',
  ])('the check %s is answered without it, and only here', (text) => {
    const check = { method: 'POST', query: {}, headers: {}, body: Buffer.from(text) };
    expect(judge(check, CLOUD)).toEqual({ type: 'container-check' });
    expect(refusalOf(check)).toBe('403 no timestamp');
  });

  test('an account whose pushes are signed is not opened by the header', () => {
    expect(refusalOf(image('json'))).toBe('403 no timestamp');
  });

  test('is refused as a GET, and not read as anything else', () => {
    expect(refusalOf({ ...image('xml'), method: 'GET' }, CLOUD)).toMatch(/^400 a GET/);
    for (const body of [Buffer.from('hello'), Buffer.from([0x7b, 0xff, 0x7d])])
      expect(judge({ ...image('xml'), body }, CLOUD)).toMatchObject({ type: 'unreadable' });
  });
});

test('nothing that was sent is repeated in a reason', () => {
  const parameter = fc.oneof(fc.constant(undefined), fc.string({ minLength: 5 }), fc.array(fc.string()));
  const query = fc.record({
    signature: parameter,
    timestamp: fc.oneof(parameter, fc.constant(String(NOW / SECOND))),
    nonce: parameter,
    encrypt_type: parameter,
    msg_signature: parameter,
    echostr: parameter,
  });
  fc.assert(
    fc.property(
      fc.constantFrom('GET', 'POST'),
      query,
      fc.uint8Array(),
      fc.constantFrom(SIGNED, CLOUD),
      (method, given, body, expected) => {
        const verdict = judge({ method, query: given, headers: {}, body }, expected);
        expect(verdict.type).toBe('refused');
        const said = verdict.type === 'refused' ? verdict.reason : '';
        for (const value of [given.signature, given.nonce, given.msg_signature, given.echostr].flat())
          if (value !== undefined && value.length > 4) expect(said).not.toContain(value);
      },
    ),
  );
});
