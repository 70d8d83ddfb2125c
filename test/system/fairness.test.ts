import { expect, test, vi } from 'vitest';
import { newMediaId } from '../../src/demo/weixin/weixin-simulator.ts';
import { FAILURES } from '../../src/failure.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { iso } from '../../src/time.ts';
import { eventually } from '../support/eventually.ts';
import { APP_ID, OTHER_APP_ID, testJob } from '../support/jobs.ts';
import { healthUrl, jobOf, lettersOf, logLines, notArchived, type Stack, untilIdle } from '../support/stack.ts';
import { openStackOfTwoApps, openStackWithApps } from './more-apps.ts';

// Many processes share two cores: none of it may depend on how soon it is done.
vi.setConfig({ testTimeout: 180_000 });

const SICK = 'wx00000000000051c4';
const ADDRESS = '203.0.113.7';

/** As WeChat says it to a caller whose address is not on the allow-list. */
const NOT_ALLOWED = {
  endpoint: 'token',
  appId: SICK,
  action: { type: 'errcode', errcode: 40164, errmsg: `invalid ip ${ADDRESS} ipv6 ::ffff:${ADDRESS}, not in whitelist` },
} as const;

const SLOTS = 4;

function sickCalls({ simulator }: Stack): number {
  return simulator.counts.tokens.get(SICK) ?? 0;
}

/** Lets the time of the next probe come, which is five minutes off, and that of the next look. */
async function makeProbeDue({ queue, redis }: Stack): Promise<void> {
  const [gate] = await queue.gates.list();
  await redis.hset(queue.keys.gates, SICK, JSON.stringify({ ...gate, probeAt: Date.now() }));
  await redis.del(queue.keys.probe(SICK));
  // By then nobody remembers the failed call for a token.
  await redis.del(queue.keys.token(SICK));
}

test('an app whose address is not allowed waits, and is told, while two others are archived; then one probe opens its gate', async () => {
  await using stack = await openStackWithApps([OTHER_APP_ID, SICK], { env: { WORKER_CONCURRENCY: String(SLOTS) } });
  const { simulator, queue } = stack;
  simulator.arm(NOT_ALLOWED);
  const sick = stack.addMedia(40, { appId: SICK });
  const healthy = [...stack.addMedia(60), ...stack.addMedia(60, { appId: OTHER_APP_ID })];
  await queue.door.admit([...sick, ...healthy].map(jobOf));
  const workers = [stack.worker(), stack.worker()];
  const lane = queue.lanes.lane(laneOf(SICK));

  await eventually(async () => ((await notArchived(stack, healthy)).length === 0 ? true : undefined));
  await eventually(async () =>
    (await queue.gates.list()).length === 1 && (await lane.counts()).active === 0 ? true : undefined,
  );
  // Each worker asks at start, and those asked that were under way when the gate closed.
  const calls = sickCalls(stack);
  expect(calls).toBeLessThanOrEqual(2 * (SLOTS + 1));
  expect(await lane.counts()).toMatchObject({ active: 0, failed: 0 });
  for (const { mediaId } of sick) expect(simulator.counts.media.get(mediaId)).toBeUndefined();

  const gate = { appId: SICK, reason: 'ip-not-allowed', errcode: 40164, detail: ADDRESS };
  const { hint } = FAILURES['ip-not-allowed'];
  const [row] = (await stack.command(['status', '--json'])).rows();
  expect(row?.['gates']).toEqual([expect.objectContaining({ ...gate, hint })]);
  const { stdout } = await stack.command(['status']);
  // However its lines are broken.
  const text = stdout.replaceAll(/\s+/g, ' ');
  expect(text).toContain(`${SICK} closed for`);
  expect(text).toContain(`: ip-not-allowed (${ADDRESS})`);
  expect(text).toContain(hint);
  for (const worker of workers) {
    const metrics = await (await fetch(`${healthUrl(worker)}/metrics`)).text();
    expect(metrics.match(/^weixin_media_gate_closed\{.*/gm)).toEqual([
      `weixin_media_gate_closed{app="${SICK}",reason="ip-not-allowed"} 1`,
    ]);
  }
  const closings = workers.flatMap((worker) => logLines(worker, 'gate closed'));
  expect(closings).not.toEqual([]);
  for (const line of closings) expect(line).toMatchObject({ ...gate, hint });

  // A probe that meets the same is one call, and puts the next one off.
  await makeProbeDue(stack);
  const now = Date.now();
  await eventually(async () => ((await queue.gates.list())[0]?.probeAt ?? 0) > now || undefined);
  expect(sickCalls(stack)).toBe(calls + 1);

  simulator.disarm();
  await makeProbeDue(stack);
  await untilIdle(stack);
  expect(await notArchived(stack, sick)).toEqual([]);
  expect(await queue.gates.list()).toEqual([]);
  expect(sickCalls(stack)).toBe(calls + 2);
  for (const { mediaId } of sick) expect(simulator.counts.media.get(mediaId)).toBe(1);
  expect(workers.flatMap((worker) => logLines(worker, 'gate opened'))).toMatchObject([{ appId: SICK }]);
  expect(await lettersOf(stack)).toEqual([]);
});

test('twenty thousand jobs of one app do not stand before ten of another', async () => {
  // `npm run bench:lanes` does it with a hundred thousand; to hand those in would take most of the time of this test.
  const backlog = 20_000;
  await using stack = await openStackOfTwoApps({ ownRedis: true, env: { WORKER_CONCURRENCY: String(SLOTS) } });
  const { queue, simulator } = stack;
  // Whatever the large tenant asks for is this: nobody keeps so many media to send.
  const image = { type: 'text', contentType: 'image/gif', body: 'GIF89a, more or less;' } as const;
  simulator.arm({ endpoint: 'media', appId: APP_ID, action: image });
  const receivedAt = iso(Date.now());
  const large = Array.from({ length: backlog }, () => testJob({ mediaId: newMediaId(), receivedAt }));
  expect((await queue.door.admit(large)).accepted).toBe(backlog);
  const worker = stack.worker();
  const archived = (): unknown[] => logLines(worker, 'archived').map(({ appId }) => appId);
  await eventually(() => (archived().length > 5 * SLOTS ? true : undefined));

  const small = stack.addMedia(10, { appId: OTHER_APP_ID });
  await queue.door.admit(small.map(jobOf));
  const before = archived().length;
  await eventually(() => (archived().filter((appId) => appId === OTHER_APP_ID).length === 10 ? true : undefined));

  const order = archived();
  const [first, last] = [order.indexOf(OTHER_APP_ID), order.lastIndexOf(OTHER_APP_ID)];
  // It is seen within a second, in which no worker archives so many; then each has its turn.
  expect(first - before).toBeLessThan(backlog / 4);
  expect(last - first).toBeLessThan(100);
  expect(await notArchived(stack, small)).toEqual([]);
  expect((await queue.lanes.lane(laneOf(APP_ID)).counts()).waiting).toBeGreaterThan(backlog / 2);
});
