import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import type { CloudRun, CloudRunOptions } from '../../src/demo/weixin/cloud-run.ts';
import type { SampleFormat } from '../../src/demo/weixin/sample-media.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { FAILURES } from '../../src/failure.ts';
import { MINUTE } from '../../src/time.ts';
import type { CloudCredential } from '../../src/weixin/credentials/account.ts';
import { type CredentialBench, openCredentialBench } from '../support/credentials.ts';
import { APP_ID, OTHER_APP_ID } from '../support/jobs.ts';

const MODES = ['sidecar', 'token-file'] as const;

let bench: CredentialBench;
let folder: string;
let tokenFile: string;
let cloudRun: CloudRun;

beforeEach(async () => {
  bench = await openCredentialBench();
  folder = await mkdtemp(join(tmpdir(), 'weixin-media-cloud-'));
  tokenFile = join(folder, 'cloudbase_access_token');
});

afterEach(async () => {
  await bench[Symbol.asyncDispose]();
  await rm(folder, { recursive: true, force: true });
});

/** Opens the environment, writes its token, and has the app call from there. */
async function callFrom(
  options: CloudRunOptions,
  credential: Pick<CloudCredential, 'mode'> & Partial<CloudCredential>,
  urls?: readonly string[],
): Promise<void> {
  cloudRun = bench.simulator.openCloudRun(options);
  await writeFile(tokenFile, `${cloudRun.token()}\n`);
  bench.use({ [APP_ID]: { type: 'cloud', namesApp: false, tokenFile, ...credential } }, urls);
}

function addMedia(format: SampleFormat = 'jpeg', appId = APP_ID): SimulatedMedia {
  return bench.simulator.addMedia({ appId, format });
}

function bytesOf(media: SimulatedMedia): Buffer {
  return Buffer.concat([...media.bytes.chunks()]);
}

describe.each(MODES)('with %s', (mode) => {
  test('media come without any access_token, and none is asked for', async () => {
    await callFrom({ owner: APP_ID }, { mode });
    const media = addMedia();
    expect(await bench.fetch(media)).toEqual({ bytes: bytesOf(media), declaredType: 'image/jpeg' });
    expect(bench.simulator.counts.tokens.size).toBe(0);
    expect(cloudRun.passedOn).toBe(mode === 'sidecar' ? 1 : 0);
    expect(bench.refreshes).toEqual([]);
  });

  test('HD voice is another rendition under the same id', async () => {
    await callFrom({ owner: APP_ID }, { mode });
    const voice = addMedia('amr');
    const plain = await bench.fetch({ mediaId: voice.mediaId, kind: 'voice' });
    const hd = await bench.fetch({ mediaId: voice.mediaId, kind: 'voice', variant: 'hd-voice' });
    expect(plain).toEqual({ bytes: bytesOf(voice), declaredType: 'audio/amr' });
    expect(hd).toMatchObject({ declaredType: 'voice/speex' });
    expect(hd).not.toMatchObject({ bytes: bytesOf(voice) });
  });

  test('an app that shares the environment of another must be named, and says so', async () => {
    await callFrom({ owner: OTHER_APP_ID, sharedWith: [APP_ID] }, { mode, namesApp: true });
    const media = addMedia();
    expect(await bench.fetch(media)).toMatchObject({ bytes: bytesOf(media) });
    await callFrom({ owner: OTHER_APP_ID, sharedWith: [APP_ID] }, { mode });
    // The owner of the environment knows no such media.
    expect(await bench.fetch(media)).toMatchObject({ code: 'invalid-media-id', errcode: 40007 });
    const { mediaId } = addMedia('jpeg', OTHER_APP_ID);
    expect(await bench.fetch({ mediaId })).toHaveProperty('bytes');
  });

  test.each([
    [true, `the environment is not shared with ${APP_ID}`],
    [false, 'set fromAppId if the environment is shared by several apps'],
  ])('a call of an app that may not (named: %s) says what to look at', async (namesApp, detail) => {
    await callFrom({ owner: OTHER_APP_ID }, { mode, namesApp });
    if (!namesApp) bench.simulator.arm({ endpoint: 'media', action: { type: 'errcode', errcode: 48001 } });
    expect(await bench.fetch(addMedia())).toMatchObject({ code: 'api-unauthorized', errcode: 48001, detail });
  });

  test.each([
    [41001, 'cloud-call-not-ready'],
    [85107, 'cloud-call-misconfigured'],
    [85112, 'cloud-call-misconfigured'],
    [85113, 'cloud-call-not-ready'],
    [45009, 'quota-exhausted'],
    [40007, 'invalid-media-id'],
  ])('%i is %s', async (errcode, code) => {
    await callFrom({ owner: APP_ID }, { mode });
    bench.simulator.arm({ endpoint: 'media', action: { type: 'errcode', errcode } });
    expect(await bench.fetch(addMedia())).toMatchObject({ code, errcode });
  });
});

describe('the sidecar', () => {
  test('that is off, or has not started, is not ready', async () => {
    await callFrom({ owner: APP_ID }, { mode: 'sidecar' });
    cloudRun.isOpen = false;
    expect(await bench.fetch(addMedia())).toMatchObject({ code: 'cloud-call-not-ready', errcode: 41001 });
    cloudRun.isOpen = true;
    expect(await bench.fetch(addMedia())).toHaveProperty('bytes');
  });

  test('that has media/get not on its list is misconfigured, after a few tries', async () => {
    await callFrom({ owner: APP_ID }, { mode: 'sidecar' });
    cloudRun.allowedPaths = ['/wxa/msg_sec_check'];
    const { mediaId } = addMedia();
    expect(await bench.fetch({ mediaId })).toMatchObject({ code: 'cloud-call-misconfigured', httpStatus: 502 });
    expect(bench.simulator.counts.media.get(mediaId)).toBe(4);
    expect(cloudRun.passedOn).toBe(0);
  });

  test('that has the path of HD voice not on its list does not stop the other media', async () => {
    await callFrom({ owner: APP_ID }, { mode: 'sidecar' });
    cloudRun.allowedPaths = ['/cgi-bin/media/get'];
    const { mediaId } = addMedia('amr');
    expect(await bench.fetch({ mediaId, variant: 'hd-voice' })).toMatchObject({ code: 'hd-voice-refused' });
    expect(FAILURES['hd-voice-refused'].action).toBe('retry');
    expect(await bench.fetch({ mediaId })).toHaveProperty('bytes');
  });

  test('that passes a 502 of WeChat on is a bad gateway like any other', async () => {
    await callFrom({ owner: APP_ID }, { mode: 'sidecar' });
    bench.simulator.arm({ endpoint: 'media', action: { type: 'html', status: 502 } });
    expect(await bench.fetch(addMedia())).toMatchObject({ code: 'weixin-bad-gateway', httpStatus: 502 });
  });

  test('that can not be reached is no reason to call another host, nor to leave this one', async () => {
    const nobody = `http://127.0.0.1:${await freePort()}`;
    await callFrom({ owner: APP_ID }, { mode: 'sidecar' }, [nobody, bench.simulator.url]);
    const { mediaId } = addMedia();
    expect(await bench.fetch({ mediaId })).toMatchObject({ code: 'weixin-unreachable' });
    expect(bench.simulator.counts.media.get(mediaId)).toBeUndefined();
    expect(bench.nextHost()).toBe(nobody);
  });
});

describe('the token file', () => {
  test('is read at each use, so that what WeChat puts there is used at once', async () => {
    await callFrom({ owner: APP_ID }, { mode: 'token-file' });
    const tokens = bench.tokens();
    expect(await bench.fetch(addMedia(), tokens)).toHaveProperty('bytes');
    bench.advance(31 * MINUTE);
    const { mediaId } = addMedia();
    expect(await bench.fetch({ mediaId }, tokens)).toMatchObject({ code: 'token-rejected', errcode: 42001 });
    await writeFile(tokenFile, cloudRun.token());
    expect(await bench.fetch({ mediaId }, tokens)).toHaveProperty('bytes');
    expect(new Set(cloudRun.issuedTokens()).size).toBe(2);
  });

  test('that is written while its token is being rejected is read again within the attempt', async () => {
    await callFrom({ owner: APP_ID }, { mode: 'token-file' });
    await writeFile(tokenFile, 'a-token-of-yesterday');
    const { mediaId } = addMedia();
    const fetching = bench.fetch({ mediaId });
    await expect.poll(() => bench.simulator.counts.errors.get(40014)).toBeGreaterThan(0);
    await writeFile(tokenFile, cloudRun.token());
    expect(await fetching).toHaveProperty('bytes');
  });

  test.each([
    ['is not there', undefined, "the token file can't be read (ENOENT)"],
    ['is empty', '\n', 'the token file is empty'],
    ['holds a page', '<html> not a token </html>', 'the token file holds no token'],
    ['holds far more than a token', 'x'.repeat(10_000), 'the token file holds no token'],
  ])('that %s is not ready, and nothing is asked of WeChat', async (_what, content, detail) => {
    await callFrom({ owner: APP_ID }, { mode: 'token-file' });
    if (content === undefined) await rm(tokenFile);
    else await writeFile(tokenFile, content);
    const { mediaId } = addMedia();
    expect(await bench.fetch({ mediaId })).toEqual({ code: 'cloud-call-not-ready', detail });
    expect(bench.simulator.counts.media.get(mediaId)).toBeUndefined();
  });

  test('is in no failure, whatever a lying server echoes', async () => {
    await callFrom({ owner: APP_ID }, { mode: 'token-file' });
    const body = `no such path: ?cloudbase_access_token=${cloudRun.token()}&media_id=x`;
    bench.simulator.arm({ endpoint: 'media', action: { type: 'text', body } });
    const failed = JSON.stringify(await bench.fetch(addMedia()));
    expect(failed).toContain('[redacted]');
    expect(failed).not.toContain(cloudRun.token().slice(0, 20));
  });
});
