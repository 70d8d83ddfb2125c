import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Secret } from '../../src/secret.ts';
import { parseWeixinJson } from '../../src/weixin/error-reply.ts';
import { bytesToClassify, classifyReply, type HttpAnswer, type Reply } from '../../src/weixin/reply.ts';

const TOKEN = new Secret('66_the-token-of-the-request');
const JPEG = Buffer.concat([Buffer.from('ffd8ffe000104a46494600010100000100010000', 'hex'), Buffer.alloc(300, 7)]);
const DISPOSITION = 'attachment; filename="MEDIA_ID.jpg"';

function classify(
  body: string | Buffer,
  headers: HttpAnswer['headers'] = {},
  status = 200,
  complete = true,
): Promise<Reply> {
  return classifyReply({ status, headers, head: Buffer.from(body), complete }, TOKEN);
}

async function codeOf(...args: Parameters<typeof classify>): Promise<string> {
  const reply = await classify(...args);
  return reply.type === 'failure' ? reply.failure.code : reply.type;
}

const ERROR = '{"errcode":40007,"errmsg":"invalid media_id hint: [C.5Jka05499012] rid: 66bd627d-234f6532-5f252680"}';

describe('an error of WeChat is an error', () => {
  test.each<[string, HttpAnswer['headers']]>([
    ['as text/plain', { 'content-type': 'text/plain' }],
    ['as application/json', { 'content-type': 'application/json; encoding=utf-8' }],
    ['without a type', {}],
    ['dressed as an image', { 'content-type': 'image/jpeg', 'content-disposition': DISPOSITION }],
    ['dressed as a download', { 'content-type': 'application/octet-stream', 'content-disposition': DISPOSITION }],
    [
      'under a name like JSON',
      { 'content-type': 'text/plain', 'content-disposition': 'attachment; filename="{}.json"' },
    ],
  ])('%s', async (_name, headers) => {
    expect(await classify(ERROR, headers)).toEqual({
      type: 'failure',
      failure: {
        code: 'invalid-media-id',
        errcode: 40007,
        errmsg: 'invalid media_id hint: [C.5Jka05499012] rid: 66bd627d-234f6532-5f252680',
        rid: '66bd627d-234f6532-5f252680',
      },
    });
  });

  test('whatever the HTTP status', async () => {
    expect(await codeOf(ERROR, {}, 412)).toBe('invalid-media-id');
  });

  test('behind a byte order mark, white space and with control characters in it', async () => {
    expect(await codeOf(`\uFEFF \r\n{"errcode":42001,"errmsg":"access_token\u0001 expired\n"}\n`)).toBe(
      'token-rejected',
    );
  });

  test.each([
    ['an image', { 'content-type': 'image/jpeg', 'content-disposition': DISPOSITION }],
    ['a voice', { 'content-type': 'voice/speex', 'content-disposition': DISPOSITION }],
    ['a download', { 'content-type': 'application/octet-stream', 'content-disposition': DISPOSITION }],
  ])('behind control characters, dressed as %s', async (_name, headers) => {
    expect(await codeOf(`\u0000\u0001\n\uFEFF{"errcode":40007,"errmsg":""}\u0000`, headers)).toBe('invalid-media-id');
  });

  test.each([
    ['cut short', '{"errcode":40001,"errmsg":"invalid cred'],
    ['with a quotation mark in its text', '{"errcode":40001,"errmsg":"an "odd" text"}'],
    ['with something behind it', '{"errcode":40001,"errmsg":""}\u0000\u0001<br>'],
  ])('%s, dressed as a voice or a download', async (_name, body) => {
    for (const type of ['voice/speex', 'audio/amr', 'application/octet-stream'])
      expect(await codeOf(body, { 'content-type': type, 'content-disposition': DISPOSITION })).toBe('body-not-media');
  });

  test('with its errcode as a string', async () => {
    expect(await codeOf('{"errcode":"45009","errmsg":""}')).toBe('quota-exhausted');
  });

  test('with a code that no table knows: unclassified, with the raw text', async () => {
    expect(await classify('{"errcode":99999,"errmsg":"something new"}')).toEqual({
      type: 'failure',
      failure: { code: 'unclassified', errcode: 99999, errmsg: 'something new' },
    });
  });

  test('with an errcode that is no number', async () => {
    expect(await codeOf('{"errcode":{},"errmsg":"x"}')).toBe('weixin-unexpected-reply');
  });

  test('also of success, when there is nothing to be had', async () => {
    expect(await codeOf('{"errcode":0,"errmsg":"ok"}', { 'content-type': 'text/plain' })).toBe(
      'weixin-unexpected-reply',
    );
  });

  test('and names the address that WeChat saw', async () => {
    const text =
      '{"errcode":40164,"errmsg":"invalid ip 203.0.113.7 ipv6 ::ffff:203.0.113.7, not in whitelist rid: 66bd627d-234f6532-5f252680"}';
    expect(await classify(text)).toMatchObject({ failure: { code: 'ip-not-allowed', detail: '203.0.113.7' } });
  });

  test('without the token, where a peer has echoed it', async () => {
    const echo = `{"errcode":40001,"errmsg":"bad ${TOKEN.reveal()} and ${encodeURIComponent(TOKEN.reveal())}"}`;
    expect(JSON.stringify(await classify(echo))).not.toContain('the-token');
    expect(JSON.stringify(await classify(`<html>${TOKEN.reveal()}`, {}, 502))).not.toContain('the-token');
    const url = `{"video_url":"http://${TOKEN.reveal()}.localhost/${TOKEN.reveal()}"}`;
    expect(JSON.stringify(await classify(url))).not.toContain('the-token');
  });
});

test('a token longer than what is kept of an odd answer does not leave its beginning in it', async () => {
  const long = new Secret('66_'.padEnd(514, 'secret'));
  const head = Buffer.from(`bad gateway for ${long.reveal()}`);
  const reply = await classifyReply({ status: 502, headers: {}, head, complete: true }, long);
  expect(JSON.stringify(reply)).not.toContain('secret');
});

/** Of speex, which has no magic. */
const BARE_FRAMES = Buffer.from('0600ff3b9c12e08814d7', 'hex');

describe('media are media', () => {
  test.each<[string, string | Buffer, HttpAnswer['headers']]>([
    ['with all headers', JPEG, { 'content-type': 'image/jpeg', 'content-disposition': DISPOSITION }],
    ['without a disposition', JPEG, { 'content-type': 'image/jpeg' }],
    ['under text/plain, by their first bytes', JPEG, { 'content-type': 'text/plain' }],
    ['without any header, by their first bytes', JPEG, {}],
    ['of a format without a magic, by their declared type', BARE_FRAMES, { 'content-type': 'voice/speex' }],
    [
      'of a format without a magic, as a download',
      BARE_FRAMES,
      { 'content-type': 'application/octet-stream', 'content-disposition': DISPOSITION },
    ],
    [
      'that begin with a brace',
      Buffer.from('{ \x00\xff not JSON at all', 'latin1'),
      { 'content-type': 'voice/speex', 'content-disposition': DISPOSITION },
    ],
    [
      'named like JSON',
      JPEG,
      { 'content-type': 'image/jpeg', 'content-disposition': 'attachment; filename="{\\"errcode\\":1}.json"' },
    ],
  ])('%s', async (_name, body, headers) => {
    expect(await codeOf(body, headers)).toBe('media');
  });

  test('that begin like an error but go on longer than any', async () => {
    expect(
      await codeOf(Buffer.from('{"errcode":40007,\x00\xff', 'latin1'), { 'content-type': 'voice/speex' }, 200, false),
    ).toBe('media');
  });

  test.each(['{"a":1}', 'a letter in words'])(
    'that are a text, where the producer says that it is a file: %s',
    async (text) => {
      const headers = { 'content-type': 'application/octet-stream', 'content-disposition': DISPOSITION };
      const answer = { status: 200, headers, head: Buffer.from(text), complete: true };
      expect((await classifyReply(answer, TOKEN, 'file')).type).toBe('media');
      expect(await codeOf(text, headers)).toBe('body-not-media');
    },
  );

  test('with what is known of them', async () => {
    const headers = { 'content-type': 'Image/JPEG; x=y', 'content-disposition': 'attachment; filename="a.JPG"' };
    expect(await classify(JPEG, headers)).toEqual({
      type: 'media',
      declaredType: 'image/jpeg',
      sniffed: { mime: 'image/jpeg', extension: 'jpg' },
      namedExtension: 'jpg',
    });
  });
});

describe.each(['image/jpeg', 'video/mp4'])('what has no magic and comes as an attachment of %s', (contentType) => {
  const headers = { 'content-type': contentType, 'content-disposition': DISPOSITION };

  test.each<[string, Buffer]>([
    ['a brace and then bytes that are no JSON', Buffer.concat([Buffer.from('{'), BARE_FRAMES])],
    ['bytes of a format that nobody knows yet', BARE_FRAMES],
    ['hardly any bytes', Buffer.from('ffd8', 'hex')],
  ])('is media: %s', async (_name, head) => {
    expect(await codeOf(head, headers)).toBe('media');
  });

  test.each<[string, Buffer]>([
    ['nothing but zeros', Buffer.alloc(5_000)],
    ['text in UTF-16', Buffer.from('{"errcode":40001,"errmsg":"invalid"}', 'utf16le')],
    ['an error that was cut short', Buffer.from('{"errcode":40001,"errmsg":"\xff', 'latin1')],
    ['JSON without an errcode', Buffer.from('{"ok":true}')],
  ])('is none: %s', async (_name, head) => {
    expect(await codeOf(head, headers)).toBe('body-not-media');
  });
});

describe.each([
  ['image/jpeg', undefined],
  ['video/mp4', undefined],
])('what has no magic and is no attachment is no %s:', (contentType, disposition) => {
  const headers = {
    'content-type': contentType,
    ...(disposition === undefined ? {} : { 'content-disposition': disposition }),
  };

  test.each<[string, Buffer]>([
    ['nothing but zeros', Buffer.alloc(5_000)],
    ['bytes of some other kind', BARE_FRAMES],
    ['text in UTF-16', Buffer.from('{"errcode":40001,"errmsg":"invalid"}', 'utf16le')],
    ['text in GBK', Buffer.from('cfb5cdb3b7b1c3a6a3acc7ebc9d4baf3d4d9cad4', 'hex')],
  ])('%s', async (_name, head) => {
    expect(await codeOf(head, headers)).toBe('body-not-media');
  });
});

describe.each([
  ['audio/amr', undefined],
  ['audio/amr', DISPOSITION],
  ['voice/speex', undefined],
  ['audio/mpeg', DISPOSITION],
  ['application/octet-stream', DISPOSITION],
])('words are no media, declared as %s, disposition %s:', (contentType, disposition) => {
  const headers = {
    'content-type': contentType,
    ...(disposition === undefined ? {} : { 'content-disposition': disposition }),
  };

  test.each<[string, Buffer]>([
    ['of a gateway', Buffer.from('no healthy upstream')],
    ['of WeChat', Buffer.from('system busy, please try again later\n')],
    ['in Chinese', Buffer.from('系统繁忙，请稍候再试')],
    ['in Chinese, as GBK', Buffer.from('cfb5cdb3b7b1c3a6a3acc7ebc9d4baf3d4d9cad4', 'hex')],
    ['in UTF-16', Buffer.from('upstream request timeout', 'utf16le')],
    ['that are an error cut short', Buffer.from('{"errcode":40001,"errmsg":"inv')],
    ['that are JSON without an errcode', Buffer.from('{"code":-1,"message":"sys"}')],
  ])('%s', async (_name, head) => {
    expect(await codeOf(head, headers)).toBe('body-not-media');
  });
});

describe('what is neither is a failure', () => {
  test.each<[string, string, HttpAnswer['headers'], number, string]>([
    ['a gateway page with its status', '<html>502</html>', { 'content-type': 'text/html' }, 502, 'weixin-bad-gateway'],
    ['a gateway page as 200', '<!DOCTYPE html><p>', { 'content-type': 'text/html' }, 200, 'weixin-bad-gateway'],
    ['a gateway page dressed as an image', '<html>502</html>', { 'content-type': 'image/jpeg' }, 200, 'body-not-media'],
    ['a status without a body', '', {}, 503, 'weixin-bad-gateway'],
    ['a redirect', '', { location: 'http://elsewhere/' }, 302, 'weixin-bad-gateway'],
    ['nothing at all', '', { 'content-type': 'image/jpeg', 'content-disposition': DISPOSITION }, 200, 'body-empty'],
    ['an empty object', '{}', { 'content-type': 'text/plain' }, 200, 'weixin-unexpected-reply'],
    [
      'an empty object dressed as an image',
      '{}',
      { 'content-type': 'image/jpeg', 'content-disposition': DISPOSITION },
      200,
      'body-not-media',
    ],
    ['words dressed as an image', 'system busy', { 'content-type': 'image/jpeg' }, 200, 'body-not-media'],
    [
      'JSON cut short, dressed as a video',
      '{"errcode":40001,"err',
      { 'content-type': 'video/mp4' },
      200,
      'body-not-media',
    ],
    ['some text', 'hello', { 'content-type': 'text/plain' }, 200, 'weixin-unexpected-reply'],
    [
      'some text as a download',
      'hello',
      { 'content-type': 'text/plain', 'content-disposition': DISPOSITION },
      200,
      'body-not-media',
    ],
  ])('%s', async (_name, body, headers, status, code) => {
    expect(await codeOf(body, headers, status)).toBe(code);
  });
});

describe('a video_url is an address to follow', () => {
  test.each([
    '{"video_url":"http://203.205.137.89/v.mp4"}',
    '{"errcode":0,"errmsg":"ok","video_url":"http:\\/\\/203.205.137.89\\/v.mp4"}',
  ])('%s', async (body) => {
    expect(await classify(body, { 'content-type': 'text/plain' })).toEqual({
      type: 'video-url',
      url: 'http://203.205.137.89/v.mp4',
    });
  });

  test('but not beside an errcode', async () => {
    expect(await codeOf('{"errcode":-1,"video_url":"http://203.205.137.89/v.mp4"}')).toBe('weixin-busy');
  });
});

const hostileHeaders = fc.dictionary(
  fc.constantFrom('content-type', 'content-disposition', 'content-length', 'x'),
  fc.oneof(
    fc.string(),
    fc.array(fc.string()),
    fc.constantFrom('image/jpeg', 'text/plain', 'application/json', DISPOSITION),
  ),
);
const hostileBody = fc.oneof(
  fc.uint8Array({ maxLength: 600 }).map((bytes) => Buffer.from(bytes)),
  fc.json().map((text) => Buffer.from(text)),
  fc
    .record(
      { errcode: fc.oneof(fc.integer(), fc.string(), fc.anything()), errmsg: fc.anything() },
      { requiredKeys: ['errcode'] },
    )
    .map((value) => Buffer.from(JSON.stringify(value) ?? '')),
);

test('whatever comes, it is classified, and an object with an errcode is never media', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 100, max: 599 }),
      hostileHeaders,
      hostileBody,
      fc.boolean(),
      async (status, headers, head, complete) => {
        const reply = await classifyReply({ status, headers, head, complete }, TOKEN);
        const json = complete ? parseWeixinJson(head) : undefined;
        if (json !== undefined && 'errcode' in json) expect(reply.type).not.toBe('media');
        if (status !== 200) expect(reply.type).not.toBe('media');
      },
    ),
    { numRuns: 500 },
  );
});

test('all of what may be JSON is asked for, and no more than sniffing needs of the rest', () => {
  expect(bytesToClassify(Buffer.from('{'))).toBe(65_537);
  expect(bytesToClassify(Buffer.from('\uFEFF \n{'))).toBe(65_537);
  expect(bytesToClassify(Buffer.alloc(0))).toBe(65_537);
  expect(bytesToClassify(JPEG)).toBe(4_100);
});
