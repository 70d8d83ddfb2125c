import { createHmac } from 'node:crypto';
import { expect, test, vi } from 'vitest';
import type { FaultAction } from '../../src/demo/weixin/fault.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { DAY, SECOND } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, APP_SECRET, OTHER_APP_ID } from '../support/jobs.ts';
import { leaksIn } from '../support/leaks.ts';
import { dumpBucket, dumpRedis, healthUrl, jobOf, openJobs, untilIdle, writeLines } from '../support/stack.ts';
import { OTHER_APP_SECRET, openStackOfTwoApps } from './more-apps.ts';
import { openS3Door, S3_SECRET } from './s3-door.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const OPEN_ID_KEY = 'the-key-of-the-pseudonyms';
const OPEN_ID = 'o6_bmjrPTlm6_2sgVt7hMZOPfL2M';

const FAULTS: readonly FaultAction[] = [
  { type: 'errcode', errcode: -1 },
  { type: 'errcode', errcode: 40001 },
  { type: 'errcode', errcode: 99_999 },
  { type: 'truncate' },
  { type: 'reset' },
  { type: 'hang', where: 'headers' },
  { type: 'hang', where: 'body' },
  { type: 'empty' },
  { type: 'html', status: 502 },
  { type: 'text', body: 'what is that' },
  { type: 'redirect', location: 'http://127.0.0.1:9/' },
];

test.each([
  { policy: 'none', env: { ARCHIVE_OPEN_ID: 'none' } },
  { policy: 'hmac', env: { ARCHIVE_OPEN_ID: 'hmac', ARCHIVE_OPEN_ID_KEY: OPEN_ID_KEY } },
])(
  'no secret, token or openId is in any log, metric, key, object or answer, with ARCHIVE_OPEN_ID=$policy',
  async ({ policy, env }) => {
    await using door = await openS3Door();
    await using stack = await openStackOfTwoApps({
      ownRedis: true,
      gateway: door.gateway,
      env: {
        ...env,
        LOG_LEVEL: 'trace',
        WEIXIN_RESPONSE_TIMEOUT_SECONDS: '2',
        WEIXIN_IDLE_TIMEOUT_SECONDS: '2',
      },
    });
    const { simulator } = stack;
    const answers: string[] = [];
    const say = async (args: readonly string[], input = ''): Promise<void> => {
      const { stdout, stderr } = await stack.command(args, { input });
      answers.push(stdout, stderr);
    };
    const workers = [stack.worker(), stack.worker()];
    await Promise.all(workers.map((worker) => worker.said('worker started')));
    const [token] = await eventually(() => {
      const issued = simulator.issuedTokens();
      return issued.length >= 2 ? issued : undefined;
    });

    const spoil = (action: FaultAction): SimulatedMedia[] => {
      const soonGivenUp = { ageMs: 3 * DAY - 5 * SECOND };
      const spoiled = [...stack.addMedia(1), ...stack.addMedia(1, soonGivenUp)];
      for (const [index, { mediaId }] of spoiled.entries())
        simulator.arm({ endpoint: 'media', mediaId, action, ...(index === 0 ? { times: 1 } : {}) });
      return spoiled;
    };
    // What a gateway gives back of the request it could not serve.
    const echo = `no such path: /cgi-bin/media/get?access_token=${token}&media_id=x`;
    const echoes: readonly FaultAction[] = [
      { type: 'text', body: echo },
      { type: 'text', body: `<html>${echo}</html>`, contentType: 'text/html' },
      { type: 'errcode', errcode: 99_998, errmsg: echo },
      { type: 'redirect', location: `http://127.0.0.1:9/?access_token=${token}` },
    ];
    const media = [
      ...stack.addMedia(6),
      ...stack.addMedia(2, { appId: OTHER_APP_ID }),
      ...stack.addMedia(2, { format: 'mp4', deliver: 'video-url' }),
      ...stack.addMedia(1, { ageMs: 4 * DAY }),
      ...[...FAULTS, ...echoes].flatMap(spoil),
    ];
    const jobs = media.map((added, index) => ({
      ...jobOf(added),
      source: { messageId: `message-${index}`, openId: OPEN_ID },
    }));
    const [first, second, ...rest] = jobs;

    door.answer({ status: 403, code: 'AccessDenied' }, ['PUT']);
    const invalid = { ...second, FromUserName: OPEN_ID, source: { openId: OPEN_ID, open_id: OPEN_ID } };
    await say(['enqueue', '--file', '-'], `${JSON.stringify(first)}\n${JSON.stringify(invalid)}\n`);
    await eventually(() => (workers.some((worker) => worker.log().includes('store-denied')) ? true : undefined));
    door.answer(undefined);
    await say(['enqueue', '--file', await writeLines(stack, rest), '--json']);
    // A program with a BullMQ client of its own knows no policy.
    await stack.queue.lanes.lane('media').add([
      { id: 'from-elsewhere', data: second, priority: 1 },
      { id: 'from-elsewhere-and-wrong', data: invalid, priority: 1 },
      { id: 'from-elsewhere-and-no-job', data: `<FromUserName>${OPEN_ID}</FromUserName>`, priority: 1 },
    ]);
    await say(['status', '--json']);
    await untilIdle(stack, 120_000);
    simulator.arm({ endpoint: 'token', action: { type: 'html', status: 502 }, times: 1 });
    simulator.rotateToken(APP_ID);
    await stack.queue.door.admit(stack.addMedia(3).map(jobOf));
    await untilIdle(stack, 120_000);

    await say(['status']);
    await say(['doctor', '--json']);
    await say(['dead-letters', 'list', '--json']);
    const dead = await Array.fromAsync(stack.queue.deadLetterIndex.list({}));
    expect(dead.length).toBeGreaterThan(FAULTS.length);
    for (const { appId, mediaId } of dead.slice(0, 2)) {
      await say(['dead-letters', 'show', appId, mediaId]);
      await say(['show', appId, mediaId]);
    }
    const metrics = await Promise.all(
      workers.map(async (worker) => (await fetch(`${healthUrl(worker)}/metrics`)).text()),
    );

    const secrets = new Map([
      [APP_SECRET, 'the AppSecret'],
      [OTHER_APP_SECRET, 'the other AppSecret'],
      [S3_SECRET, 'the secret of the store'],
      [OPEN_ID, 'the openId'],
      [OPEN_ID_KEY, 'the key of the pseudonyms'],
      ...simulator.issuedTokens().map((token): [string, string] => [token, 'a token']),
    ]);
    expect(simulator.issuedTokens().length).toBeGreaterThan(2);
    const redis = await dumpRedis(stack.redis);
    const bucket = await dumpBucket(stack);
    const places = new Map([
      ['the logs', workers.map((worker) => worker.log()).join('\n')],
      ['the metrics', metrics.join('\n')],
      ['Redis', redis],
      ['the bucket', bucket],
      ['what commands print', answers.join('\n')],
    ]);
    expect(leaksIn(secrets, places)).toEqual([]);
    expect(await openJobs(stack)).toBe(0);

    const pseudonym = createHmac('sha256', OPEN_ID_KEY).update(`${APP_ID}\n${OPEN_ID}`).digest('hex');
    expect(bucket.includes(pseudonym)).toBe(policy === 'hmac');
    expect(places.get('the logs')).not.toContain(pseudonym);
  },
);
