import { readFile, truncate, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import { encode } from 'silk-wasm';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Derived, type DeriveTools, deriveFile } from '../../src/derive/derive.ts';
import type { Ffmpeg } from '../../src/derive/ffmpeg.ts';
import { SOURCES } from '../../src/derive/recipes.ts';
import { MINUTE, SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import {
  amrOf,
  INSTALL_TIMEOUT_MS,
  isAlive,
  makeByFfmpeg,
  type OwnFolder,
  ownFolder,
  provideFfmpeg,
  toneOf,
} from '../support/ffmpeg.ts';

const never = new AbortController().signal;
let ffmpeg: Ffmpeg;
let folder: OwnFolder;
/** Takes what is made. */
let target: OwnFolder;

beforeAll(async () => {
  ffmpeg = await provideFfmpeg();
}, INSTALL_TIMEOUT_MS);
beforeEach(async () => {
  folder = await ownFolder();
  target = await ownFolder();
});
afterEach(async () => {
  await folder[Symbol.asyncDispose]();
  await target[Symbol.asyncDispose]();
});

async function derive(
  bytes: Uint8Array | string,
  mediaType: string,
  tools: DeriveTools = { ffmpeg },
  signal = never,
): Promise<Derived> {
  const inputPath = await folder.write('media', bytes);
  const before = await target.names();
  const derived = await deriveFile({ inputPath, mediaType, folder: target.path }, tools, signal);
  if (!derived.ok) expect(await target.names()).toEqual(before);
  return derived;
}

const TYPES = Object.keys(SOURCES);
const FAILED = { ok: false, failure: { code: 'tool-failed' } };

describe('a playlist in disguise', () => {
  let server: Server;
  let asked: string[];
  let port: number;

  beforeAll(async () => {
    server = createServer((request, response) => {
      asked.push(request.url ?? '');
      response.end();
    });
    const { promise, resolve } = Promise.withResolvers<void>();
    server.listen(0, '127.0.0.1', resolve);
    await promise;
    ({ port } = server.address() as AddressInfo);
  });
  afterAll(() => {
    server.close();
  });
  beforeEach(() => {
    asked = [];
  });

  /** Formats that open what their author names: a picture that lies beside them, and an address. */
  const PLAYLISTS: Readonly<Record<string, (secret: string, url: string) => string>> = {
    'concat, of a file': () => 'ffconcat version 1.0\nfile secret.png\n',
    'concat, of an address': (_, url) => `ffconcat version 1.0\nfile '${url}'\n`,
    'HLS, of a file': (secret) => `#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n${secret}\n#EXT-X-ENDLIST\n`,
    'HLS, of an address': (_, url) => `#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n${url}\n#EXT-X-ENDLIST\n`,
    'HLS, behind the magic of AMR': (_, url) => `#!AMR\n#EXTM3U\n#EXTINF:1,\n${url}\n#EXT-X-ENDLIST\n`,
    SVG: (secret, url) =>
      `<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="64" height="64"><image xlink:href="${url}" width="64" height="64"/><image xlink:href="file://${secret}"/></svg>`,
    'a reference movie': (_, url) => `RTSPtext\nrtsp${url}\n`,
    'SMIL, ASX and such': (_, url) => `[Reference]\nRef1=${url}\n`,
  };

  test.each(Object.entries(PLAYLISTS))('opens nothing: %s', async (_, playlist) => {
    const secret = join(folder.path, 'secret.png');
    await makeByFfmpeg(secret, '-f', 'lavfi', '-i', 'color=red:s=64x64', '-frames:v', '1');
    const text = playlist(secret, `http://127.0.0.1:${port}/secret`);
    for (const type of TYPES) {
      const derived = await derive(text, type);
      // What is behind the magic of AMR is noise, and may be heard.
      if (!(type === 'audio/amr' && text.startsWith('#!AMR'))) expect(derived, type).toMatchObject(FAILED);
    }
    expect(asked).toEqual([]);
  });
});

/** A PNG of a size, whose pixels are not there. */
function pngOf(width: number, height: number): Buffer {
  const header = Buffer.alloc(17);
  header.write('IHDR', 'latin1');
  header.writeUInt32BE(width, 4);
  header.writeUInt32BE(height, 8);
  header.set([8, 6, 0, 0, 0], 12);
  const crc = Buffer.alloc(4);
  crc.writeUInt32BE(crc32(header));
  const data = Buffer.from('0000000049444154' + '35af061e', 'hex');
  const magic = Buffer.from('89504e470d0a1a0a0000000d', 'hex');
  return Buffer.concat([magic, header, crc, data, Buffer.from('0000000049454e44ae426082', 'hex')]);
}

describe('a picture of too many pixels is refused at once', () => {
  test('as PNG', async () => {
    for (const [width, height] of [
      [65_535, 65_535],
      [2_147_483_647, 2_147_483_647],
      [2_147_483_647, 1],
      [0, 0],
    ])
      expect(await derive(pngOf(width ?? 0, height ?? 0), 'image/png')).toMatchObject(FAILED);
  });

  test('as GIF, JPEG and BMP', async () => {
    const gif = Buffer.from('474946383961ffffffff8000000000000000002c00000000ffffffff0002024c01003b', 'hex');
    expect(await derive(gif, 'image/gif')).toMatchObject(FAILED);
    const jpeg = await readFile(
      await makeByFfmpeg(join(folder.path, 'x.jpg'), '-f', 'lavfi', '-i', 'color=red:s=64x64', '-frames:v', '1'),
    );
    const frame = jpeg.indexOf(Buffer.from([0xff, 0xc0]));
    jpeg.writeUInt32BE(0xffff_ffff, frame + 5);
    expect(await derive(jpeg, 'image/jpeg')).toMatchObject(FAILED);
    const bmp = await readFile(
      await makeByFfmpeg(join(folder.path, 'x.bmp'), '-f', 'lavfi', '-i', 'color=red:s=64x64', '-frames:v', '1'),
    );
    bmp.writeInt32LE(100_000, 18);
    bmp.writeInt32LE(100_000, 22);
    expect(await derive(bmp, 'image/bmp')).toMatchObject(FAILED);
  });

  test('that is whole, and small as a file', async () => {
    const path = join(folder.path, 'bomb.png');
    await makeByFfmpeg(path, '-f', 'lavfi', '-i', 'color=red:s=10000x6000,format=rgba', '-frames:v', '1');
    const bytes = await readFile(path);
    expect(bytes.byteLength).toBeLessThan(2_000_000);
    expect(await derive(bytes, 'image/png')).toMatchObject(FAILED);
  });

  test('but not one of 48 million, within the limit of memory', async () => {
    const path = join(folder.path, 'large.png');
    await makeByFfmpeg(path, '-f', 'lavfi', '-i', 'color=red:s=8000x6000,format=rgba', '-frames:v', '1');
    expect(await derive(await readFile(path), 'image/png')).toMatchObject({ ok: true });
  });
});

describe('a file that is cut', () => {
  const LAVFI = ['-f', 'lavfi', '-i'];
  const MAKERS: Readonly<Record<string, () => Promise<Uint8Array>>> = {
    'image/jpeg': () => made('x.jpg', ...LAVFI, 'testsrc=s=640x480', '-frames:v', '1'),
    'image/png': () => made('x.png', ...LAVFI, 'testsrc=s=640x480', '-frames:v', '1'),
    'image/gif': () => made('x.gif', ...LAVFI, 'testsrc=s=640x480', '-frames:v', '3'),
    'image/webp': () => made('x.webp', ...LAVFI, 'testsrc=s=640x480', '-frames:v', '1'),
    'image/bmp': () => made('x.bmp', ...LAVFI, 'testsrc=s=640x480', '-frames:v', '1'),
    'video/mp4': () => made('x.mp4', ...LAVFI, 'testsrc=s=640x480:d=1', '-pix_fmt', 'yuv420p'),
    'audio/amr': async () => amrOf(100),
    'audio/silk': async () => (await encode(toneOf(440, 1), 24_000)).data,
  };

  async function made(name: string, ...args: string[]): Promise<Buffer> {
    return readFile(await makeByFfmpeg(join(folder.path, name), ...args));
  }

  test.each(Object.entries(MAKERS))('gives what is there of it, or nothing: %s', async (type, make) => {
    const whole = await make();
    for (const share of [0, 0.001, 0.01, 0.3, 0.6, 0.9]) {
      const derived = await derive(whole.subarray(0, Math.floor(whole.byteLength * share)), type);
      if (!derived.ok) expect(derived).toMatchObject(FAILED);
    }
    expect(await derive(whole, type)).toMatchObject({ ok: true });
  });

  test('gives no voice of a header alone', async () => {
    for (const [type, header] of [
      ['audio/amr', '#!AMR\n'],
      ['audio/amr-wb', '#!AMR-WB\n'],
      ['audio/silk', '\x02#!SILK_V3'],
      ['audio/silk', '#!SILK_V3'],
    ] as const)
      expect(await derive(header, type)).toMatchObject(FAILED);
  });
});

test('a file of another type than was said gives nothing', async () => {
  const path = join(folder.path, 'x.jpg');
  await makeByFfmpeg(path, '-f', 'lavfi', '-i', 'color=red:s=64x64', '-frames:v', '1');
  const jpeg = await readFile(path);
  for (const type of TYPES.filter((type) => type !== 'image/jpeg'))
    expect(await derive(jpeg, type), type).toMatchObject(FAILED);
});

describe('SILK', () => {
  const MAGIC = Buffer.from('\x02#!SILK_V3', 'latin1');

  test('of a packet that would reach beyond the memory of the decoder is not decoded', async () => {
    for (const sizeBytes of [1_025, 5_000, 60_000]) {
      const packet = Buffer.alloc(2 + sizeBytes, 0x55);
      packet.writeUInt16LE(sizeBytes);
      const derived = await derive(Buffer.concat([MAGIC, packet, packet]), 'audio/silk');
      expect(derived).toMatchObject({ ok: false, failure: { detail: `a packet of SILK of ${sizeBytes} bytes` } });
    }
  });

  test('of noise is noise or nothing', async () => {
    const packets = Array.from({ length: 200 }, (_, at) => {
      const bytes = Array.from({ length: 1 + ((at * 37) % 1_000) }, (_, index) => (index * index * 7_919 + at) & 0xff);
      return Buffer.from([bytes.length & 0xff, bytes.length >> 8, ...bytes]);
    });
    const derived = await derive(Buffer.concat([MAGIC, ...packets]), 'audio/silk');
    if (!derived.ok) expect(derived).toMatchObject(FAILED);
  });

  test('that takes long to decode is given up', async () => {
    const bytes = Buffer.concat([MAGIC, ...Array.from({ length: 30_000 }, () => Buffer.from([1, 0, 0x55]))]);
    const derived = await derive(bytes, 'audio/silk', { ffmpeg, timeoutMs: 1 });
    expect(derived).toMatchObject({ ok: false, failure: { code: 'too-slow' } });
  });

  test('of more than ten minutes is too large, and is not decoded', async () => {
    const tiny = Array.from({ length: 500_000 }, () => Buffer.from([1, 0, 0x55]));
    const started = performance.now();
    const derived = await derive(Buffer.concat([MAGIC, ...tiny]), 'audio/silk');
    expect(derived).toMatchObject({ ok: false, failure: { code: 'too-large' } });
    expect(performance.now() - started).toBeLessThan(5 * SECOND);
  });
});

test('a media that is larger than its recipe takes is not begun', async () => {
  const inputPath = await folder.write('media', '#!AMR\n');
  await truncate(inputPath, 8 * 1024 * 1024 + 1);
  const derived = await deriveFile({ inputPath, mediaType: 'audio/amr', folder: target.path }, { ffmpeg }, never);
  const detail = '8388609 bytes, of at most 8388608';
  expect(derived).toEqual({ ok: false, failure: { code: 'too-large', detail } });
});

describe('a tool that has been taken over', () => {
  /** In place of ffmpeg: a script that finds the path of its output in $out. */
  async function standIn(script: string): Promise<Ffmpeg> {
    const lines = ['#!/bin/sh', 'for out; do :; done', 'out=$' + '{out#file:}', script, ''];
    const path = await folder.write('ffmpeg', lines.join('\n'), 0o700);
    return { ...ffmpeg, path };
  }

  const deriveBy = async (script: string, tools: DeriveTools = {}, signal = never): Promise<Derived> =>
    derive(amrOf(50), 'audio/amr', { ffmpeg: await standIn(script), ...tools }, signal);

  test.each([
    ['makes nothing', 'true'],
    ['makes an empty file', ': > "$out"'],
    ['makes something else', 'head -c 5000 /bin/sh > "$out"'],
    ['fails after it has made something', 'head -c 5000 /dev/zero > "$out"; exit 1'],
    ['crashes', 'kill -SEGV $$'],
  ])('leaves nothing when it %s', async (_, script) => {
    expect(await deriveBy(script)).toMatchObject(FAILED);
  });

  test('leaves nothing when it writes too much', async () => {
    const tooLarge = { ok: false, failure: { code: 'too-large' } };
    expect(await deriveBy(`{ printf '\\377\\373\\120\\304'; head -c 8388608 /dev/zero; } > "$out"`)).toMatchObject(
      tooLarge,
    );
    expect(await deriveBy('exec cat /dev/zero > "$out"')).toMatchObject(tooLarge);
  });

  /** Hangs with a child, when it has begun to write. */
  const hang = (pids: string): string =>
    `echo begun > "$out"; sleep 1000 & echo $$ > '${pids}.tmp'; echo $! >> '${pids}.tmp'; mv '${pids}.tmp' '${pids}'; wait`;

  async function pidsIn(path: string): Promise<number[]> {
    const text = await eventually(() => readFile(path, 'utf8').catch(() => undefined));
    return text.trim().split('\n').map(Number);
  }

  test('is killed when it hangs, and nothing is left', async () => {
    const path = join(folder.path, 'pids');
    const derived = await deriveBy(hang(path), { timeoutMs: SECOND });
    expect(derived).toMatchObject({ ok: false, failure: { code: 'too-slow' } });
    const pids = await pidsIn(path);
    expect(pids).toHaveLength(2);
    await eventually(() => (pids.some(isAlive) ? undefined : true));
  });

  test('is killed when the work is aborted, and nothing is left', async () => {
    const path = join(folder.path, 'pids');
    const stop = new AbortController();
    const deriving = deriveBy(hang(path), { timeoutMs: 10 * MINUTE }, stop.signal);
    const pids = await pidsIn(path);
    expect(await target.names()).toEqual([expect.stringMatching(/^derive-/)]);
    stop.abort(new Error('enough'));
    await expect(deriving).rejects.toThrow('enough');
    expect(await target.names()).toEqual([]);
    await eventually(() => (pids.some(isAlive) ? undefined : true));
  });

  test('is not even started when the work is aborted before', async () => {
    const path = join(folder.path, 'pids');
    const signal = AbortSignal.abort(new Error('before'));
    await expect(deriveBy(hang(path), {}, signal)).rejects.toThrow('before');
    expect(await target.names()).toEqual([]);
    expect(await folder.names()).not.toContain('pids');
  });

  test('has no effect on what was made before', async () => {
    await writeFile(join(target.path, 'voice.mp3'), 'made before');
    const inputPath = await folder.write('media', amrOf(50));
    const tools = { ffmpeg: await standIn('exit 1') };
    const derived = await deriveFile({ inputPath, mediaType: 'audio/amr', folder: target.path }, tools, never);
    expect(derived).toMatchObject(FAILED);
    expect(await readFile(join(target.path, 'voice.mp3'), 'utf8')).toBe('made before');
    expect(await target.names()).toEqual(['voice.mp3']);
  });
});
