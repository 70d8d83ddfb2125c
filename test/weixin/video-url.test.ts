import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { FaultAction } from '../../src/demo/weixin/fault.ts';
import { MINUTE } from '../../src/time.ts';
import { isPublicAddress } from '../../src/weixin/public-address.ts';
import { createVideoDownloader, type VideoDownloader } from '../../src/weixin/video-url.ts';
import { APP_ID, testJob } from '../support/jobs.ts';
import { openWeixinBench, readAll, TEST_TIMEOUTS } from '../support/weixin.ts';

const never = new AbortController().signal;
const closing: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  await Promise.all(closing.splice(0).map((close) => close()));
});

function downloader(allowHosts: readonly string[] = []): VideoDownloader {
  const made = createVideoDownloader({ timeouts: TEST_TIMEOUTS, maxBytes: 1_000_000, allowHosts });
  closing.push(() => made.close());
  return made;
}

async function codeOf(url: string, allowHosts?: readonly string[]): Promise<string> {
  const got = await downloader(allowHosts).download(url, never);
  if (!got.ok) return got.failure.code;
  await readAll(got.value);
  return 'media';
}

describe('an address that is not public is refused', () => {
  test.each([
    'http://127.0.0.1/v.mp4',
    'http://127.1/v.mp4',
    'http://2130706433/v.mp4',
    'http://0x7f000001/v.mp4',
    'http://0177.0.0.1/v.mp4',
    'http://0.0.0.0/v.mp4',
    'http://10.0.0.1/v.mp4',
    'http://172.16.0.1/v.mp4',
    'http://192.168.1.1/v.mp4',
    'http://100.64.0.1/v.mp4',
    'http://169.254.169.254/latest/meta-data/',
    'http://224.0.0.1/v.mp4',
    'http://255.255.255.255/v.mp4',
    'http://[::1]/v.mp4',
    'http://[::]/v.mp4',
    'http://[::ffff:127.0.0.1]/v.mp4',
    'http://[::ffff:a9fe:a9fe]/v.mp4',
    'http://[::127.0.0.1]/v.mp4',
    'http://[::a9fe:a9fe]/v.mp4',
    'http://[fc00::1]/v.mp4',
    'http://[fe80::1]/v.mp4',
    'http://[64:ff9b::7f00:1]/v.mp4',
    'http://[2002:7f00:1::]/v.mp4',
    'http://localhost/v.mp4',
    'https://localhost/v.mp4',
  ])('%s', async (url) => {
    expect(await codeOf(url)).toBe('video-url-refused');
  });

  test.each([
    'ftp://203.205.137.89/v.mp4',
    'file:///etc/passwd',
    'data:video/mp4,x',
    'gopher://203.205.137.89/',
    'nonsense',
    '',
    '//x',
    'http://user:secret@203.205.137.89/v.mp4',
  ])('nor is %j followed', async (url) => {
    expect(await codeOf(url)).toBe('video-url-refused');
  });
});

test.each(['203.205.137.89', '61.182.130.30', '103.7.29.197', '2400:da00::6666'])('%s is public', (address) => {
  expect(isPublicAddress(address)).toBe(true);
});

test.each(['', 'localhost', '1.2.3', '192.0.2.1', '198.18.0.1', '240.0.0.1', '2001:db8::1', '::7f00:1', '4000::1'])(
  '%j is not public',
  (address) => {
    expect(isPublicAddress(address)).toBe(false);
  },
);

describe('from a host that is allowed by name', () => {
  let server: Server;
  let base: string;
  let requests: IncomingMessage[];
  let answer: (request: IncomingMessage) => {
    status: number;
    headers?: Record<string, string>;
    body?: string | Buffer;
  };

  beforeEach(async () => {
    requests = [];
    server = createServer((request, response) => {
      requests.push(request);
      const { status, headers = {}, body = '' } = answer(request);
      response.writeHead(status, headers).end(body);
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', resolve);
    await promise;
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    closing.push(async () => {
      server.closeAllConnections();
      server.close();
    });
  });

  const mp4 = Buffer.concat([
    Buffer.from('00000018667479706d703432000000006d70343269736f6d', 'hex'),
    Buffer.alloc(1_000),
  ]);
  const video = { status: 200, headers: { 'content-type': 'video/mp4' }, body: mp4 };

  test('a video comes, and the request has no token in it', async () => {
    answer = () => video;
    expect(await codeOf(`${base}/v.mp4?vkey=1`, ['127.0.0.1'])).toBe('media');
    expect(requests.map(({ url, headers }) => [url, headers.cookie, headers.authorization])).toEqual([
      ['/v.mp4?vkey=1', undefined, undefined],
    ]);
  });

  test('the host may be allowed together with its port', async () => {
    answer = () => video;
    const { port } = new URL(base);
    expect(await codeOf(base, [`127.0.0.1:${port}`])).toBe('media');
    expect(await codeOf(base, ['127.0.0.1:1'])).toBe('video-url-refused');
  });

  test('up to three redirects are followed', async () => {
    answer = ({ url }) => {
      const hop = Number(url?.slice(1));
      return hop === 0 ? video : { status: 302, headers: { location: `/${hop - 1}` } };
    };
    expect(await codeOf(`${base}/3`, ['127.0.0.1'])).toBe('media');
    expect(await codeOf(`${base}/4`, ['127.0.0.1'])).toBe('video-url-failed');
  });

  test.each(['http://192.168.0.1/v.mp4', 'http://localhost/', 'http://[::1]/', 'file:///etc/passwd'])(
    'a redirect to %s is refused',
    async (location) => {
      answer = () => ({ status: 301, headers: { location } });
      expect(await codeOf(base, ['127.0.0.1'])).toBe('video-url-refused');
    },
  );

  test.each([
    ['a page', { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>no</html>' }, 'body-not-media'],
    [
      'a page as video',
      { status: 200, headers: { 'content-type': 'video/mp4' }, body: '<html>no</html>' },
      'body-not-media',
    ],
    [
      'an error in JSON',
      { status: 200, headers: { 'content-type': 'application/json' }, body: '{"code":1}' },
      'body-not-media',
    ],
    ['nothing', { status: 200, headers: { 'content-type': 'video/mp4' } }, 'body-empty'],
    ['403', { status: 403 }, 'video-url-failed'],
    ['404', { status: 404 }, 'video-url-failed'],
    ['a part', { status: 206, headers: { 'content-type': 'video/mp4' }, body: mp4 }, 'video-url-failed'],
  ])('%s is no video', async (_name, given, code) => {
    answer = () => given;
    expect(await codeOf(base, ['127.0.0.1'])).toBe(code);
  });

  test('a video above the size limit ends where the limit is passed', async () => {
    answer = () => ({ ...video, body: Buffer.concat([mp4, Buffer.alloc(1_000_000)]) });
    await expect(codeOf(base, ['127.0.0.1'])).rejects.toMatchObject({ failure: { code: 'media-too-large' } });
  });
});

describe('in the whole', () => {
  test('a video behind an address comes with equal bytes', async () => {
    await using bench = await openWeixinBench();
    const media = bench.simulator.addMedia({ appId: APP_ID, format: 'mp4', sizeBytes: 300_000, deliver: 'video-url' });
    const fetched = await bench.client.fetch(testJob({ mediaId: media.mediaId }), never);
    if (!fetched.ok) throw new Error(fetched.failure.code);
    expect((await readAll(fetched.value)).equals(Buffer.concat([...media.bytes.chunks()]))).toBe(true);
  });

  test('an address whose key has expired is asked for anew, once', async () => {
    await using bench = await openWeixinBench();
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'mp4', deliver: 'video-url' });
    const forbidden: FaultAction = { type: 'html', status: 403 };
    bench.simulator.arm({ endpoint: 'video', mediaId, times: 1, action: forbidden });
    const fetched = await bench.client.fetch(testJob({ mediaId }), never);
    expect(fetched.ok).toBe(true);
    if (fetched.ok) fetched.value.discard();
    expect(bench.simulator.counts.media.get(mediaId)).toBe(2);

    bench.simulator.arm({ endpoint: 'video', mediaId, action: forbidden });
    bench.simulator.advance(11 * MINUTE);
    expect(await bench.client.fetch(testJob({ mediaId }), never)).toMatchObject({
      ok: false,
      failure: { code: 'video-url-failed', httpStatus: 403 },
    });
    expect(bench.simulator.counts.media.get(mediaId)).toBe(4);
  });

  test('a simulator on loopback is refused unless it is allowed', async () => {
    await using bench = await openWeixinBench({ allowHosts: [] });
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'mp4', deliver: 'video-url' });
    expect(await bench.client.fetch(testJob({ mediaId }), never)).toMatchObject({
      failure: { code: 'video-url-refused' },
    });
    expect(bench.simulator.counts.videos).toBe(0);
  });

  test.each<[FaultAction, string]>([
    [{ type: 'truncate' }, 'body-truncated'],
    [{ type: 'empty' }, 'body-empty'],
    [{ type: 'reset' }, 'video-url-failed'],
  ])('%o at the host of the video is %s', async (action, code) => {
    await using bench = await openWeixinBench();
    const { mediaId } = bench.simulator.addMedia({ appId: APP_ID, format: 'mp4', deliver: 'video-url' });
    bench.simulator.arm({ endpoint: 'video', action });
    const fetched = await bench.client.fetch(testJob({ mediaId }), never);
    if (fetched.ok) await expect(readAll(fetched.value)).rejects.toMatchObject({ failure: { code } });
    else expect(fetched.failure.code).toBe(code);
  });
});
