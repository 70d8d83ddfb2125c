import { createHash } from 'node:crypto';
import { readFile, stat, utimes } from 'node:fs/promises';
import { join } from 'node:path';
import { encode } from 'silk-wasm';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type DerivedFile, deriveFile } from '../../src/derive/derive.ts';
import type { Ffmpeg } from '../../src/derive/ffmpeg.ts';
import { sniffType } from '../../src/media/sniff.ts';
import {
  amrOf,
  amrWidebandOf,
  decoded,
  INSTALL_TIMEOUT_MS,
  makeByFfmpeg,
  type OwnFolder,
  ownFolder,
  probe,
  provideFfmpeg,
  toneOf,
} from '../support/ffmpeg.ts';

const never = new AbortController().signal;
let ffmpeg: Ffmpeg;
let folder: OwnFolder;

beforeAll(async () => {
  ffmpeg = await provideFfmpeg();
}, INSTALL_TIMEOUT_MS);
beforeEach(async () => {
  folder = await ownFolder();
});
afterEach(async () => {
  await folder[Symbol.asyncDispose]();
});

/** Makes what there is to be made of a file, by its own first bytes, and checks what is true of every such file. */
async function derive(inputPath: string, type: string): Promise<DerivedFile> {
  const bytes = await readFile(inputPath);
  const mediaType = (await sniffType(bytes))?.mime;
  expect(mediaType).toBe(type);
  await utimes(inputPath, 1, 1);
  const before = await stat(inputPath);
  await using target = await ownFolder();

  const derived = await deriveFile({ inputPath, mediaType, folder: target.path }, { ffmpeg }, never);
  if (!derived.ok) throw new Error(JSON.stringify(derived.failure));
  const [file, ...more] = derived.files;
  if (file === undefined) throw new Error('no file');
  expect(more).toEqual([]);
  expect(await target.names()).toEqual([file.name]);
  expect(file.path).toBe(join(target.path, file.name));
  const made = await readFile(file.path);
  expect(file.sizeBytes).toBe(made.byteLength);
  expect(file.sha256).toBe(createHash('sha256').update(made).digest('hex'));

  expect(await readFile(inputPath)).toEqual(bytes);
  const { mtimeMs, ino, mode } = await stat(inputPath);
  expect({ mtimeMs, ino, mode }).toEqual({ mtimeMs: before.mtimeMs, ino: before.ino, mode: before.mode });

  // What ffmpeg leaves unset differs by the length of its arguments.
  for (const name of ['a', 'b'.repeat(20), 'c'.repeat(60)]) {
    const other = await folder.makeFolder(name);
    const again = await deriveFile({ inputPath, mediaType, folder: other }, { ffmpeg }, never);
    expect(again).toEqual({ ok: true, files: [{ ...file, path: join(other, file.name) }] });
  }
  const again = await deriveFile({ inputPath, mediaType, folder: target.path }, { ffmpeg }, never);
  expect(again).toEqual(derived);
  const path = await folder.write(file.name, made);
  return { ...file, path };
}

/** The tone of a sound, by how often its wave crosses zero upwards. In Hz. */
async function toneIn(path: string): Promise<number> {
  const bytes = await decoded(path, 's16le');
  const samples = Array.from({ length: bytes.byteLength >> 1 }, (_, index) => bytes.readInt16LE(index * 2));
  const ups = samples.filter((sample, index) => sample >= 0 && (samples[index - 1] ?? 0) < 0).length;
  return ups / (samples.length / 24_000);
}

describe('a voice becomes an MP3', () => {
  const MP3 = { codec_name: 'mp3', format_name: 'mp3', sample_rate: '24000', channels: 1 };

  test.each([
    ['audio/amr', amrOf(150)],
    ['audio/amr-wb', amrWidebandOf(150)],
  ])('of the same length, from %s', async (type, bytes) => {
    const file = await derive(await folder.write('voice', bytes), type);
    const { name, contentType, recipe, tool } = file;
    expect({ name, contentType }).toEqual({ name: 'voice.mp3', contentType: 'audio/mpeg' });
    expect({ recipe, tool }).toEqual({ recipe: 'voice-mp3/1', tool: `ffmpeg ${ffmpeg.version}` });
    const probed = await probe(file.path);
    expect(probed).toMatchObject(MP3);
    // 150 frames of 20 ms; MP3 adds its own delay, and ends with a whole frame.
    expect(probed['duration']).toBeGreaterThanOrEqual(3);
    expect(probed['duration']).toBeLessThan(3.15);
  });

  test.each([
    ["Tencent's", (bytes: Uint8Array) => bytes],
    ['the original', (bytes: Uint8Array) => Buffer.concat([bytes.subarray(1), Buffer.from([0xff, 0xff])])],
  ])('of the same length and tone, from SILK in %s form', async (_, form) => {
    const { data } = await encode(toneOf(440, 3), 24_000);
    const file = await derive(await folder.write('voice', form(data)), 'audio/silk');
    const { name, contentType, recipe, tool } = file;
    expect({ name, contentType }).toEqual({ name: 'voice.mp3', contentType: 'audio/mpeg' });
    expect({ recipe, tool }).toEqual({ recipe: 'silk-mp3/1', tool: `silk-wasm 3.7.1 + ffmpeg ${ffmpeg.version}` });
    const probed = await probe(file.path);
    expect(probed).toMatchObject(MP3);
    expect(probed['duration']).toBeGreaterThanOrEqual(2.95);
    expect(probed['duration']).toBeLessThan(3.15);
    expect(await toneIn(file.path)).toBeCloseTo(440, -1.3);
  });
});

const LEFT_RED_RIGHT_BLUE = 'color=red:s=320x480,pad=640:480:color=blue';

/** The colour of a place in a picture, as `rgb` where each is off or on. */
async function colourAt(path: string, x: number, y: number): Promise<string> {
  const { width } = await probe(path);
  const pixels = await decoded(path, 'rgb24');
  const at = (y * Number(width) + x) * 3;
  return [...pixels.subarray(at, at + 3)].map((value) => (value > 200 ? 1 : value < 60 ? 0 : '?')).join('');
}
const RED = '100';
const BLUE = '001';
const WHITE = '111';

describe('a picture becomes a small JPEG', () => {
  test.each([
    ['image/jpeg', 'jpg', []],
    ['image/png', 'png', []],
    ['image/apng', 'png', ['-f', 'apng', '-plays', '0']],
    ['image/gif', 'gif', []],
    ['image/webp', 'webp', []],
    ['image/bmp', 'bmp', []],
  ])('from %s', async (type, extension, args) => {
    const frames = type === 'image/apng' || type === 'image/gif' ? '3' : '1';
    const path = join(folder.path, `picture.${extension}`);
    await makeByFfmpeg(path, '-f', 'lavfi', '-i', LEFT_RED_RIGHT_BLUE, '-frames:v', frames, ...args);
    const file = await derive(path, type);
    const { name, contentType, recipe, tool } = file;
    expect({ name, contentType }).toEqual({ name: 'thumbnail.jpg', contentType: 'image/jpeg' });
    expect({ recipe, tool }).toEqual({ recipe: 'image-thumbnail/1', tool: `ffmpeg ${ffmpeg.version}` });
    expect(await probe(file.path)).toMatchObject({ codec_name: 'mjpeg', width: 320, height: 240 });
    expect([await colourAt(file.path, 80, 120), await colourAt(file.path, 240, 120)]).toEqual([RED, BLUE]);
  });

  test.each([
    ['640x480', 320, 240],
    ['480x640', 240, 320],
    ['1000x999', 320, 320],
    ['100x50', 100, 50],
    ['1x1', 1, 1],
    ['9000x2', 320, 1],
    ['3x9000', 1, 320],
  ])('whose longest side is 320 at most: %s', async (size, width, height) => {
    const path = join(folder.path, 'picture.png');
    await makeByFfmpeg(path, '-f', 'lavfi', '-i', `color=red:s=${size},format=rgb24`, '-frames:v', '1');
    const file = await derive(path, 'image/png');
    expect(await probe(file.path)).toMatchObject({ width, height });
    expect(await colourAt(file.path, 0, 0)).toBe(RED);
  });

  test('on white where it is transparent', async () => {
    const path = join(folder.path, 'picture.png');
    await makeByFfmpeg(path, '-f', 'lavfi', '-i', 'color=black@0:s=640x480,format=rgba', '-frames:v', '1');
    expect(await colourAt((await derive(path, 'image/png')).path, 160, 120)).toBe(WHITE);
  });

  test('the right way up, and without what the camera noted', async () => {
    const path = join(folder.path, 'picture.jpg');
    await makeByFfmpeg(path, '-f', 'lavfi', '-i', LEFT_RED_RIGHT_BLUE, '-frames:v', '1');
    // Orientation 6: to be turned by 90 degrees clockwise.
    const exif = Buffer.from(
      '457869660000' + '4d4d002a00000008' + '0001' + '011200030000000100060000' + '00000000',
      'hex',
    );
    const plain = await readFile(path);
    const app1 = Buffer.from([0xff, 0xe1, 0, exif.byteLength + 2]);
    const noted = Buffer.concat([plain.subarray(0, 2), app1, exif, plain.subarray(2)]);
    const file = await derive(await folder.write('noted.jpg', noted), 'image/jpeg');
    expect(await probe(file.path)).toMatchObject({ width: 240, height: 320 });
    expect([await colourAt(file.path, 120, 80), await colourAt(file.path, 120, 240)]).toEqual([RED, BLUE]);
    expect((await readFile(file.path)).includes('Exif')).toBe(false);
  });
});

describe('a video becomes a small JPEG', () => {
  const SOUND = ['-f', 'lavfi', '-i', 'sine=d=2'];

  async function video(name: string, picture: string, ...args: string[]): Promise<string> {
    const path = join(folder.path, name);
    return makeByFfmpeg(path, '-f', 'lavfi', '-i', picture, ...SOUND, '-shortest', ...args);
  }

  test.each([
    ['video/mp4', 'video.mp4', ['-c:v', 'libx264', '-pix_fmt', 'yuv420p']],
    ['video/mp4', 'small.mp4', ['-c:v', 'mpeg4', '-movflags', 'faststart']],
    ['video/quicktime', 'video.mov', ['-c:v', 'libx264', '-pix_fmt', 'yuv420p']],
    ['video/x-m4v', 'video.m4v', ['-c:v', 'libx264', '-pix_fmt', 'yuv420p']],
    ['video/3gpp', 'video.3gp', ['-c:v', 'libx264', '-pix_fmt', 'yuv420p', '-c:a', 'aac', '-ar', '44100']],
  ])('from %s (%s)', async (type, name, args) => {
    const file = await derive(await video(name, `${LEFT_RED_RIGHT_BLUE},trim=duration=2`, ...args), type);
    const { contentType, recipe, tool } = file;
    expect({ name: file.name, contentType }).toEqual({ name: 'thumbnail.jpg', contentType: 'image/jpeg' });
    expect({ recipe, tool }).toEqual({ recipe: 'video-thumbnail/1', tool: `ffmpeg ${ffmpeg.version}` });
    expect(await probe(file.path)).toMatchObject({ codec_name: 'mjpeg', width: 320, height: 240 });
    expect([await colourAt(file.path, 80, 120), await colourAt(file.path, 240, 120)]).toEqual([RED, BLUE]);
  });

  test('that is not its black first frame', async () => {
    const path = await video('video.mp4', `color=red:s=640x480:d=2,drawbox=c=black:t=fill:enable='lt(n,3)'`);
    expect(await colourAt((await derive(path, 'video/mp4')).path, 160, 120)).toBe(RED);
  });

  test('from a single frame', async () => {
    const path = await video('video.mp4', 'color=red:s=640x480:d=2', '-frames:v', '1');
    expect(await colourAt((await derive(path, 'video/mp4')).path, 160, 120)).toBe(RED);
  });

  test('with square pixels, the right way up', async () => {
    const path = await video('video.mp4', 'color=red:s=320x480:d=2,setsar=2');
    expect(await probe((await derive(path, 'video/mp4')).path)).toMatchObject({ width: 320, height: 240 });
  });
});

describe('nothing is made', () => {
  test.each(['audio/mpeg', 'application/pdf', 'image/svg+xml', undefined])('of %s', async (mediaType) => {
    const inputPath = await folder.write('media', 'whatever it is');
    const derived = await deriveFile({ inputPath, mediaType, folder: folder.path }, { ffmpeg }, never);
    expect(derived).toMatchObject({ ok: false, failure: { code: 'no-recipe' } });
    expect(await folder.names()).toEqual(['media']);
  });

  test('where there is no ffmpeg, or it is gone', async () => {
    const inputPath = await folder.write('media', amrOf(50));
    const input = { inputPath, mediaType: 'audio/amr', folder: folder.path };
    const absent = { path: '/nowhere/ffmpeg', version: '1' };
    for (const tools of [
      {},
      { ffmpeg: { ...absent, confinement: {} } },
      { ffmpeg: { ...absent, confinement: ffmpeg.confinement } },
    ])
      expect(await deriveFile(input, tools, never)).toMatchObject({ ok: false, failure: { code: 'tool-missing' } });
    expect(await folder.names()).toEqual(['media']);
  });
});
