import { spawn } from 'node:child_process';
import { chmod, mkdir, readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { type Ffmpeg, ffmpegArguments, findFfmpeg, parseFfmpegVersion, runFfmpeg } from '../../src/derive/ffmpeg.ts';
import { SOURCES } from '../../src/derive/recipes.ts';
import { runTool } from '../../src/derive/run-tool.ts';
import { MINUTE } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { INSTALL_TIMEOUT_MS, isAlive, type OwnFolder, ownFolder, provideFfmpeg } from '../support/ffmpeg.ts';

const never = new AbortController().signal;
let real: Ffmpeg;
let folder: OwnFolder;

beforeAll(async () => {
  real = await provideFfmpeg();
}, INSTALL_TIMEOUT_MS);
beforeEach(async () => {
  folder = await ownFolder();
});
afterEach(async () => {
  await folder[Symbol.asyncDispose]();
});

const STAND_IN = '#!/bin/sh\necho "ffmpeg version 9.8.7-test Copyright"\n';

test.each([
  ['ffmpeg version 5.1.9-0+deb12u1 Copyright (c) 2000-2026', '5.1.9'],
  ['ffmpeg version 7.1 Copyright', '7.1'],
  ['ffmpeg version n8.0.1 Copyright', '8.0.1'],
  ['ffmpeg version 7.0.2-static https://johnvansickle.com/ffmpeg/ Copyright', '7.0.2'],
  ['ffmpeg version N-109741-gbbe95f7353 Copyright', 'N-109741-gbbe95f7353'],
  ['a warning  ffmpeg version 5.1.9-0+deb12u1 Copyright', '5.1.9'],
  ['avconv version 12 Copyright', undefined],
  ['', undefined],
])('reads the version of "%s"', (said, version) => {
  expect(parseFfmpegVersion(said)).toBe(version);
});

describe('findFfmpeg', () => {
  test('finds the one of this machine, and what confines it', async () => {
    expect(real).toMatchObject({ path: expect.stringMatching(/^\/.*ffmpeg$/), version: expect.stringMatching(/^\d/) });
    const found = await findFfmpeg({ path: real.path }, never);
    expect(found).toEqual({ ok: true, ffmpeg: real });
  });

  test('takes the first one in PATH that may be run', async () => {
    const path = await folder.write('ffmpeg', STAND_IN, 0o600);
    const aFolder = join(folder.path, 'a-folder');
    await mkdir(join(aFolder, 'ffmpeg'), { recursive: true });
    const searchPath = `${aFolder}:${folder.path}:/nowhere`;
    expect(await findFfmpeg({ searchPath }, never)).toEqual({ ok: false, why: 'no ffmpeg in PATH' });
    await chmod(path, 0o700);
    expect(await findFfmpeg({ searchPath }, never)).toEqual({
      ok: true,
      ffmpeg: { path, version: '9.8.7', confinement: {} },
    });
  });

  test('looks for it nowhere near where we happen to stand', async () => {
    await folder.write('ffmpeg', STAND_IN, 0o700);
    const searchPath = `${relative(process.cwd(), folder.path)}:`;
    expect(await findFfmpeg({ searchPath }, never)).toEqual({ ok: false, why: 'no ffmpeg in PATH' });
  });

  test.each([
    ['a relative path', 'ffmpeg', 'no absolute path'],
    ['nothing', '/nowhere/ffmpeg', 'does not answer as ffmpeg'],
    ['another program', '/bin/true', 'does not answer as ffmpeg'],
    ['a folder', '/tmp', 'does not answer as ffmpeg'],
  ])('says what is wrong with %s', async (_, path, why) => {
    expect(await findFfmpeg({ path }, never)).toEqual({ ok: false, why: expect.stringContaining(why) });
  });

  test('leaves out a confiner that does not work here', async () => {
    const path = await folder.write('ffmpeg', STAND_IN, 0o700);
    await folder.write('setpriv', '#!/bin/sh\necho "setpriv: unrecognized option"; exit 1\n', 0o700);
    const nice = await folder.write('nice', '#!/bin/sh\nshift 2; exec "$@"\n', 0o700);
    const found = await findFfmpeg({ searchPath: folder.path }, never);
    expect(found).toEqual({ ok: true, ffmpeg: { path, version: '9.8.7', confinement: { nice } } });
  });
});

describe('ffmpeg', () => {
  const sources = Object.values(SOURCES);
  // A build may lack what is of a library of its own.
  const decoders = sources.flatMap((source): readonly string[] => source.decoders).filter((name) => !/^lib/.test(name));
  test.each([
    ...new Set(sources.map(({ demuxer }) => `demuxer=${demuxer}`)),
    ...new Set(decoders.map((decoder) => `decoder=${decoder}`)),
  ])('knows the %s of the table', async (topic) => {
    const command = [real.path, '-hide_banner', '-h', topic] as const;
    const { said } = await runTool({ command, folder: folder.path, timeoutMs: MINUTE }, never);
    expect(said).toMatch(/^(Demuxer|Decoder) /);
  });
});

describe('runFfmpeg', () => {
  const source = SOURCES['image/png'];

  function runOf(outputPath: string): Parameters<typeof runFfmpeg>[1] {
    const inputPath = join(folder.path, 'in.png');
    const limits = { maxOutputBytes: 1_000_000, timeoutMs: MINUTE };
    return { inputPath, source, output: ['-f', 'mjpeg'], outputPath, folder: folder.path, ...limits };
  }

  test('names one container, its decoders and files alone before the input', () => {
    const args = ffmpegArguments(runOf('/out.jpg'));
    const before = args.slice(0, args.indexOf('-i'));
    expect(before).toContain('-nostdin');
    for (const [option, value] of [
      ['-protocol_whitelist', 'file'],
      ['-f', 'png_pipe'],
      ['-codec_whitelist', 'png'],
      ['-threads', '1'],
      ['-max_pixels', '50000000'],
    ])
      expect(before[before.indexOf(option ?? '') + 1]).toBe(value);
    expect(args[args.indexOf('-map_metadata') + 1]).toBe('-1');
    expect(args.slice(-3)).toEqual(['-fs', '1000000', 'file:/out.jpg']);
  });

  test('takes a file of any name for a file', () => {
    for (const name of ['http://x/y', 'concat:a|b', '-version', 'a%03d.png']) {
      const args = ffmpegArguments({ ...runOf('/out.jpg'), inputPath: name });
      expect(args[args.indexOf('-i') + 1]).toMatch(/^file:\//);
    }
  });

  test('runs it when nobody else wants to, with limits of memory, files and processor time', async () => {
    const script = 'nice; ulimit -v; ulimit -f; ulimit -t; ulimit -c; grep -i nonewprivs /proc/self/status';
    const path = await folder.write('ffmpeg', `#!/bin/sh\n${script}\n`, 0o700);
    const end = await runFfmpeg({ ...real, path }, runOf(join(folder.path, 'out.jpg')), never);
    const files = Math.ceil((1_000_000 + 1024 * 1024) / 512);
    expect(end.said).toMatch(new RegExp(`^19 ${1024 * 1024} (${files}|${files - 1}) 61 0 NoNewPrivs: 1$`));
  });

  test('dies with us', async () => {
    const path = await folder.write('ffmpeg', '#!/bin/sh\necho $$ > pid.tmp; mv pid.tmp pid; exec sleep 1000\n', 0o700);
    const module = new URL('../../src/derive/ffmpeg.ts', import.meta.url).href;
    const args = [{ ...real, path }, runOf('/out.jpg')].map((value) => JSON.stringify(value)).join(', ');
    const script = `import { runFfmpeg } from '${module}'; await runFfmpeg(${args}, new AbortController().signal);`;
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' });
    const pid = Number(await eventually(() => readFile(join(folder.path, 'pid'), 'utf8').catch(() => undefined)));
    expect(isAlive(pid)).toBe(true);
    parent.kill('SIGKILL');
    await eventually(() => (isAlive(pid) ? undefined : true));
  });
});
