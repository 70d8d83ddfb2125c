import { createHash } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SAMPLE_FORMATS, type SampleFormat } from '../../../src/demo/weixin/sample-media.ts';
import { startWeixinSimulator, type WeixinSimulator } from '../../../src/demo/weixin/weixin-simulator.ts';
import { sniffType } from '../../../src/media/sniff.ts';
import { HOUR, MINUTE, SECOND } from '../../../src/time.ts';
import { APP_ID, APP_SECRET, OTHER_APP_ID } from '../../support/jobs.ts';
import { askPlainToken, askToken, mediaUrl } from '../../support/weixin.ts';

let simulator: WeixinSimulator;

beforeEach(async () => {
  simulator = await startWeixinSimulator();
  simulator.addApp({ appId: APP_ID, secret: APP_SECRET });
});

afterEach(() => simulator.close());

async function get(mediaId: string, token?: string): Promise<Response> {
  return fetch(mediaUrl(simulator.url, token ?? (await askToken(simulator.url)).access_token, mediaId));
}

async function errcodeOf(response: Response): Promise<unknown> {
  return ((await response.json()) as { errcode: unknown }).errcode;
}

function addJpeg(): string {
  return simulator.addMedia({ appId: APP_ID, format: 'jpeg' }).mediaId;
}

describe('stable_token', () => {
  test('looks like a token of WeChat, and is the same until its last five minutes', async () => {
    const first = await askToken(simulator.url);
    expect(first).toEqual({ access_token: expect.stringMatching(/^\d\d_[A-Za-z0-9_-]{100,160}$/), expires_in: 7200 });
    simulator.advance(6_000 * SECOND);
    expect(await askToken(simulator.url)).toEqual({ access_token: first.access_token, expires_in: 1200 });
    simulator.advance(1_000 * SECOND);
    const second = await askToken(simulator.url);
    expect(second.access_token).not.toBe(first.access_token);
    expect(second.expires_in).toBe(7200);
  });

  test('leaves the token before valid for five minutes when it rotates', async () => {
    const mediaId = addJpeg();
    const first = await askToken(simulator.url);
    simulator.advance(7_000 * SECOND);
    await askToken(simulator.url);
    expect((await get(mediaId, first.access_token)).headers.get('content-type')).toBe('image/jpeg');
    simulator.advance(201 * SECOND);
    expect(await errcodeOf(await get(mediaId, first.access_token))).toBe(40001);
  });

  test('retires the token before at once when forced, but not twice within 30 s', async () => {
    const mediaId = addJpeg();
    const first = await askToken(simulator.url);
    const forced = await askToken(simulator.url, true);
    expect(forced.access_token).not.toBe(first.access_token);
    expect(await errcodeOf(await get(mediaId, first.access_token))).toBe(40001);
    expect((await askToken(simulator.url, true)).access_token).toBe(forced.access_token);
    simulator.advance(31 * SECOND);
    expect((await askToken(simulator.url, true)).access_token).not.toBe(forced.access_token);
  });

  test('refuses the 21st forced refresh of a day', async () => {
    for (let count = 0; count < 20; count += 1) {
      await askToken(simulator.url, true);
      simulator.advance(31 * SECOND);
    }
    expect(await askToken(simulator.url, true)).toMatchObject({ errcode: 45009 });
  });

  test('takes POST with JSON only', async () => {
    expect(await errcodeOf(await fetch(`${simulator.url}/cgi-bin/stable_token`))).toBe(43002);
    const form = new URLSearchParams({ grant_type: 'client_credential', appid: APP_ID, secret: APP_SECRET });
    expect(await errcodeOf(await fetch(`${simulator.url}/cgi-bin/stable_token`, { method: 'POST', body: form }))).toBe(
      47001,
    );
  });

  test('refuses a wrong secret and an unknown app', async () => {
    const ask = async (appid: string, secret: string): Promise<unknown> =>
      errcodeOf(
        await fetch(`${simulator.url}/cgi-bin/stable_token`, {
          method: 'POST',
          body: JSON.stringify({ grant_type: 'client_credential', appid, secret }),
        }),
      );
    expect(await ask(APP_ID, 'wrong')).toBe(40125);
    expect(await ask(OTHER_APP_ID, APP_SECRET)).toBe(40013);
  });
});

describe('/cgi-bin/token', () => {
  test('issues a new token at every call and leaves the one before valid for five minutes', async () => {
    const mediaId = addJpeg();
    const first = await askPlainToken(simulator.url);
    const second = await askPlainToken(simulator.url);
    expect(second.access_token).not.toBe(first.access_token);
    expect((await get(mediaId, first.access_token)).headers.get('content-type')).toBe('image/jpeg');
    simulator.advance(6 * MINUTE);
    expect(await errcodeOf(await get(mediaId, first.access_token))).toBe(40001);
    expect((await get(mediaId, second.access_token)).headers.get('content-type')).toBe('image/jpeg');
  });

  test('does not affect the stable_token, nor the other way round', async () => {
    const mediaId = addJpeg();
    const stable = await askToken(simulator.url);
    await askPlainToken(simulator.url);
    const plain = await askPlainToken(simulator.url);
    await askToken(simulator.url, true);
    simulator.advance(6 * MINUTE);
    expect((await get(mediaId, plain.access_token)).headers.get('content-type')).toBe('image/jpeg');
    expect(await errcodeOf(await get(mediaId, stable.access_token))).toBe(40001);
  });
});

describe('media/get', () => {
  test.each(Object.keys(SAMPLE_FORMATS) as SampleFormat[])(
    'serves %s with honest bytes and headers',
    async (format) => {
      const media = simulator.addMedia({ appId: APP_ID, format, sizeBytes: 150_001 });
      const response = await get(media.mediaId);
      const bytes = Buffer.from(await response.arrayBuffer());
      const { contentType, extension } = SAMPLE_FORMATS[format];
      expect(response.status).toBe(200);
      expect(response.headers.get('content-type')).toBe(contentType);
      expect(response.headers.get('content-disposition')).toBe(`attachment; filename="${media.mediaId}.${extension}"`);
      expect(response.headers.get('content-length')).toBe('150001');
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(media.bytes.sha256);
      const sniffed = await sniffType(bytes.subarray(0, 4_100));
      const expected = { speex: undefined, silk: 'audio/silk' } as Partial<Record<SampleFormat, string | undefined>>;
      expect(sniffed?.mime).toBe(format in expected ? expected[format] : contentType);
    },
  );

  test('gives the same bytes whatever their size and from wherever they are read', async () => {
    const media = simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes: 1_000_000 });
    const whole = Buffer.concat([...media.bytes.chunks()]);
    expect(whole.byteLength).toBe(1_000_000);
    expect(Buffer.concat([...media.bytes.chunks(777_777)]).equals(whole.subarray(777_777))).toBe(true);
  });

  test('serves a video as an address on an IP host whose key expires', async () => {
    const media = simulator.addMedia({ appId: APP_ID, format: 'mp4', deliver: 'video-url' });
    const response = await get(media.mediaId);
    expect(response.headers.get('content-type')).toBe('text/plain');
    expect(response.headers.get('content-disposition')).toBeNull();
    const { video_url: url } = (await response.json()) as { video_url: string };
    expect(url).toMatch(
      /^http:\/\/127\.0\.0\.1:\d+\/vweixinp\.tc\.qq\.com\/1007_[0-9a-f]{32}\.f10\.mp4\?vkey=[0-9A-F]+&sha=0&save=1$/,
    );
    expect((await fetch(url)).headers.get('content-type')).toBe('video/mp4');
    simulator.advance(11 * MINUTE);
    expect((await fetch(url)).status).toBe(403);
  });

  test('forgets a media after three days', async () => {
    const mediaId = addJpeg();
    simulator.advance(72 * HOUR - SECOND);
    expect((await get(mediaId)).headers.get('content-type')).toBe('image/jpeg');
    simulator.advance(2 * SECOND);
    expect(await errcodeOf(await get(mediaId))).toBe(40007);
  });

  test('writes errors as WeChat does: status 200, text/plain, compact JSON, a rid that begins with the time', async () => {
    const response = await get('no_such_media');
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toBe('text/plain');
    expect(response.headers.get('content-disposition')).toBeNull();
    const text = await response.text();
    expect(Number(response.headers.get('content-length'))).toBe(text.length);
    const [, seconds, hex] =
      /^\{"errcode":40007,"errmsg":"invalid media_id hint: \[.{4}0(\d{3})\d{2,5}\] rid: ([0-9a-f]{8})-[0-9a-f]{8}-[0-9a-f]{8}"\}$/.exec(
        text,
      ) ?? [];
    const unixTime = Number.parseInt(hex ?? '', 16);
    expect(Math.abs(unixTime - Date.now() / SECOND)).toBeLessThan(300);
    expect(unixTime % 1000).toBe(Number(seconds));
  });

  test.each([
    ['no token', 41001, async () => ''],
    ['a token nobody issued', 40014, async () => 'garbage'],
    [
      'a token that was replaced',
      40001,
      async () => {
        const { access_token: token } = await askToken(simulator.url);
        simulator.rotateToken(APP_ID);
        return token;
      },
    ],
    [
      'a token that has aged',
      42001,
      async () => {
        const { access_token: token } = await askToken(simulator.url);
        simulator.advance(3 * HOUR);
        return token;
      },
    ],
  ])('answers %s with %i, also where the media is unknown', async (_name, errcode, token) => {
    expect(await errcodeOf(await get('no_such_media', await token()))).toBe(errcode);
  });

  test('does not serve the media of another app', async () => {
    simulator.addApp({ appId: OTHER_APP_ID, secret: APP_SECRET });
    const { mediaId } = simulator.addMedia({ appId: OTHER_APP_ID, format: 'jpeg' });
    expect(await errcodeOf(await get(mediaId))).toBe(40007);
  });

  test('keeps to the quotas of a day and of a minute', async () => {
    simulator.addApp({ appId: APP_ID, secret: APP_SECRET, dailyQuota: 3, minuteQuota: 2 });
    const mediaId = addJpeg();
    const status = async (): Promise<unknown> => {
      const response = await get(mediaId);
      return response.headers.get('content-type') === 'image/jpeg' ? 0 : errcodeOf(response);
    };
    expect([await status(), await status(), await status()]).toEqual([0, 0, 45011]);
    simulator.advance(MINUTE + SECOND);
    expect([await status(), await status()]).toEqual([0, 45009]);
    simulator.advance(24 * HOUR);
    expect(await status()).toBe(0);
  });
});
