import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test, vi } from 'vitest';
import { freePort } from '../../src/demo/redis-server.ts';
import { type PushMode, type PushSender, pushMessage, simulatedMessage } from '../../src/demo/weixin/message-push.ts';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { SECOND } from '../../src/time.ts';
import { APP_ID } from '../support/jobs.ts';
import { AES_KEY, PUSH_TOKEN } from '../support/push.ts';
import { lettersOf, notArchived, openStack, untilIdle } from '../support/stack.ts';

vi.setConfig({ testTimeout: 180_000 });

const MODES: readonly PushMode[] = ['plaintext', 'compatible', 'safe'];
const MESSAGES = 150;

test('whatever dies meanwhile, a message that was answered success is queued once, and saved', async () => {
  const push = { WEIXIN_PUSH_TOKEN: PUSH_TOKEN.replaceAll('-', ''), WEIXIN_PUSH_AES_KEY: AES_KEY };
  const port = await freePort();
  await using stack = await openStack({ ownRedis: true, env: push });
  const at = { HTTP_PORT: String(port) };
  let ingest = await stack.ingest(at);
  const url = `http://127.0.0.1:${port}/weixin/${APP_ID}`;
  const patience = { answerMs: 5 * SECOND, pauseMs: 0.5 * SECOND, tries: 3 };
  const handled: SimulatedMedia[] = [];
  const answers: number[] = [];

  async function sendOne(index: number): Promise<void> {
    const mode = MODES[index % MODES.length] ?? 'safe';
    const format = index % 2 === 0 ? 'xml' : 'json';
    const sender: PushSender = {
      token: push.WEIXIN_PUSH_TOKEN,
      encodingAesKey: AES_KEY,
      appId: APP_ID,
      mode,
      format,
    };
    const media = stack.addMedia(2, { sizeBytes: 2_000 });
    const [video, thumb] = media;
    const fields = { MediaId: video?.mediaId ?? '', ThumbMediaId: thumb?.mediaId ?? '' };
    const message = simulatedMessage('video', fields, Date.now());
    const outcome = await pushMessage(url, message, sender, patience, Date.now, AbortSignal.timeout(60_000));
    answers.push(...outcome.answers.map(({ status }) => status));
    // Whoever was told nothing tells it to nobody; he may have been heard all the same.
    if (outcome.handled) handled.push(...media);
  }

  const sending: Promise<void>[] = [];
  for (let index = 0; index < MESSAGES; index += 1) {
    sending.push(sendOne(index));
    await sleep(20);
    if (index === 40) sending.push(stack.restartRedis());
    if (index === 80) {
      ingest.process.kill('SIGKILL');
      await ingest.exited;
      ingest = await stack.ingest(at);
    }
    if (index === 110) {
      stack.redisServer().process.kill('SIGSTOP');
      sending.push(sleep(2 * SECOND).then(() => void stack.redisServer().process.kill('SIGCONT')));
    }
  }
  await Promise.all(sending);
  expect(answers).toContain(200);
  expect(handled.length).toBeGreaterThan(MESSAGES);

  const { waiting } = await stack.queue.lanes.lane(laneOf(APP_ID)).counts();
  expect(waiting).toBeGreaterThanOrEqual(handled.length);
  expect(waiting).toBeLessThanOrEqual(2 * MESSAGES);
  await stack.worker().said('worker started');
  await untilIdle(stack, 120_000);
  expect(await notArchived(stack, handled)).toEqual([]);
  expect(await lettersOf(stack)).toEqual([]);
});
