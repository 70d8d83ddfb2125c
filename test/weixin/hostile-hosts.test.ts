import type { LookupAddress } from 'node:dns';
import { createServer, isIPv6, type Server } from 'node:net';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AddressRefusedError, isPublicAddress, type Lookup, publicLookup } from '../../src/weixin/public-address.ts';
import { createVideoDownloader, type VideoDownloader } from '../../src/weixin/video-url.ts';
import { hostileUrls, privateIpv4, privateIpv6 } from '../support/hostile-host.ts';
import { type RawAnswer, type RawServer, startRawServer } from '../support/raw-weixin.ts';
import { TEST_TIMEOUTS } from '../support/weixin.ts';

const never = new AbortController().signal;
/** Nothing is ever connected to; if it is, it shows soon. */
const TIMEOUTS = { ...TEST_TIMEOUTS, connectMs: 1_000 };

const LOOPBACK: readonly LookupAddress[] = [
  { address: '127.0.0.1', family: 4 },
  { address: '::1', family: 6 },
];

/** A name server for which all names are names of this machine. No test asks a real one. */
const toLoopback: Lookup = (_hostname, _options, callback) => callback(null, [...LOOPBACK]);

const VIDEO = Buffer.concat([Buffer.from('00000018667479706d703432000000006d703432', 'hex'), Buffer.alloc(100)]);

/** Serves a video to whoever comes. */
const serve: RawAnswer = (socket) =>
  void socket.end(
    Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\nContent-Length: 120\r\n\r\n`), VIDEO]),
  );

let parts: AsyncDisposableStack;
/** What no download may reach. */
let trap: RawServer;
let onIpv6: Server | undefined;
let caught: number;

beforeEach(async () => {
  parts = new AsyncDisposableStack();
  caught = 0;
  trap = parts.use(await startRawServer(serve));
  onIpv6 = createServer((socket) => {
    caught += 1;
    socket.destroy();
  });
  const { promise, resolve } = Promise.withResolvers<void>();
  // Not every machine has it.
  onIpv6.on('error', () => resolve()).listen(trap.port, '::1', resolve);
  await promise;
  parts.defer(() => void onIpv6?.close());
});

afterEach(() => parts.disposeAsync());

function downloader(lookup: Lookup = toLoopback, allowHosts: readonly string[] = []): VideoDownloader {
  const made = createVideoDownloader({ timeouts: TIMEOUTS, maxBytes: 1_000_000, allowHosts, lookup });
  parts.defer(() => made.close());
  return made;
}

async function codeOf(videos: VideoDownloader, url: string): Promise<string> {
  const got = await videos.download(url, never);
  if (!got.ok) return got.failure.code;
  got.value.discard();
  return 'media';
}

const connections = (): number => trap.sockets.length + caught;

test('the trap works', async () => {
  expect(await codeOf(downloader(toLoopback, ['127.0.0.1']), trap.url)).toBe('media');
  expect(connections()).toBe(1);
});

test('no address that is not public is followed, however it is written', async () => {
  const videos = downloader();
  await fc.assert(
    fc.asyncProperty(hostileUrls(trap.port), async (url) => {
      expect(await codeOf(videos, url)).toBe('video-url-refused');
      expect(connections()).toBe(0);
    }),
    { numRuns: 2_000 },
  );
});

test('nor is it when an allowed host redirects to it', async () => {
  const chains = new Map<string, { readonly status: number; readonly location: string }>();
  const allowed = parts.use(
    await startRawServer((socket, { head }) => {
      const { status, location } = chains.get(/^GET (\S+) /.exec(head)?.[1] ?? '') ?? { status: 404, location: '' };
      socket.end(`HTTP/1.1 ${status} x\r\nLocation: ${location}\r\nContent-Length: 0\r\n\r\n`);
    }),
  );
  const videos = downloader(toLoopback, [`127.0.0.1:${allowed.port}`]);
  // Headers are ASCII, and white space at the ends of one is no part of it.
  const elsewhere = (url: string): boolean => URL.parse(url, allowed.url)?.host !== new URL(allowed.url).host;
  const locations = fc.oneof(
    hostileUrls(trap.port).filter((url) => /^[\x21-\x7e]+$/.test(url) && elsewhere(url)),
    fc.constantFrom('//', '\\\\', '/\\').map((start) => `${start}127.0.0.1:${trap.port}/v.mp4`),
    fc.constantFrom(
      'file:///etc/passwd',
      'data:video/mp4,x',
      'ftp://127.0.0.1/',
      'javascript:0',
      'http://',
      'http://[/',
    ),
  );
  const statuses = fc.constantFrom(301, 302, 303, 307, 308);
  const property = fc.asyncProperty(
    locations,
    fc.array(statuses, { minLength: 1, maxLength: 3 }),
    async (location, hops) => {
      const start = `/${chains.size}`;
      for (const [index, status] of hops.entries()) {
        const last = index === hops.length - 1;
        chains.set(`${start}-${index}`, { status, location: last ? location : `${start}-${index + 1}` });
      }
      expect(await codeOf(videos, `${allowed.url}${start}-0`)).toBe('video-url-refused');
      expect(connections()).toBe(0);
    },
  );
  await fc.assert(property, { numRuns: 500 });
});

const PUBLIC = ['203.205.137.89', '61.182.130.30', '1.1.1.1', '2400:da00::6666', '2606:4700:4700::1111'];

const answers: fc.Arbitrary<readonly string[]> = fc.array(
  fc.oneof(
    fc.constantFrom(...PUBLIC),
    privateIpv4.map((octets) => octets.join('.')),
    privateIpv6,
  ),
  { maxLength: 6 },
);

const addressOf = (address: string): LookupAddress => ({ address, family: isIPv6(address) ? 6 : 4 });

test('of what a name server answers only the public addresses are left', async () => {
  await fc.assert(
    fc.asyncProperty(answers, fc.boolean(), async (addresses, all) => {
      let asked = 0;
      const lookup = publicLookup((_hostname, _options, callback) => {
        asked += 1;
        callback(null, addresses.map(addressOf));
      });
      const { promise, resolve, reject } = Promise.withResolvers<unknown>();
      lookup('name.test', { all }, (error, found) => (error === null ? resolve(found) : reject(error)));
      const open = addresses.filter((address) => PUBLIC.includes(address));
      if (open.length === 0) await expect(promise).rejects.toBeInstanceOf(AddressRefusedError);
      else expect(await promise).toEqual(all ? open.map(addressOf) : open[0]);
      expect(asked).toBe(1);
    }),
  );
});

test('every address of the ranges that are not public is known for one', () => {
  fc.assert(
    fc.property(
      fc.oneof(
        privateIpv4.map((octets) => octets.join('.')),
        privateIpv6,
      ),
      (address) => {
        expect(isPublicAddress(address)).toBe(false);
      },
    ),
    { numRuns: 5_000 },
  );
});

describe('a name that changes its mind', () => {
  /** Public when it is checked, and ours when it is connected to. */
  function turning(family: 4 | 6): LookupAddress {
    let reads = 0;
    return {
      family,
      get address() {
        reads += 1;
        const [open, closed] = family === 4 ? ['203.205.137.89', '127.0.0.1'] : ['2400:da00::6666', '::1'];
        return reads === 1 ? open : closed;
      },
    };
  }

  test('between the check and the connection gets a connection and not a byte', async () => {
    const received: Buffer[] = [];
    const videos = downloader((_hostname, _options, callback) => callback(null, [turning(4)]));
    const server = createServer((socket) => {
      socket.on('data', (chunk) => received.push(chunk)).on('error', () => undefined);
    });
    const listening = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', listening.resolve);
    await listening.promise;
    const ended = new Promise<void>((resolve) => {
      server.on('connection', (socket) => socket.on('close', () => resolve()));
    });
    const address = server.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    expect(await codeOf(videos, `http://rebinding.test:${port}/v.mp4`)).toBe('video-url-refused');
    await ended;
    server.close();
    expect(Buffer.concat(received).toString()).toBe('');
  });

  test('between two downloads is asked anew, and refused', async () => {
    const asked: string[] = [];
    const videos = downloader((hostname, options, callback) => {
      asked.push(hostname);
      toLoopback(hostname, options, callback);
    });
    for (let count = 0; count < 3; count += 1)
      expect(await codeOf(videos, `http://rebinding.test:${trap.port}/v.mp4`)).toBe('video-url-refused');
    expect(asked).toEqual(['rebinding.test', 'rebinding.test', 'rebinding.test']);
    expect(connections()).toBe(0);
  });
});
