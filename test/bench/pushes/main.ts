/**
 * Lets WeChat push messages at a steady rate, and counts what becomes of them.
 *
 *   npm run bench:pushes -- [--rate N] [--seconds N] [--mode plaintext|compatible|safe] [--repeated PERCENT] [--json]
 *
 * One redis-server with an append-only file, one ingest process, and this one, which is WeChat: it sends on time, whether or
 * not the answers have come, a picture a message, and some of them a second time. Prints how long the answers took, and
 * ends with 0 only if every push was answered `success` within 5 s and every media is queued exactly once.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { provideRedisServer, startRedisServer } from '../../../src/demo/redis-server.ts';
import type { PushMode, SimulatedFields } from '../../../src/demo/weixin/message-push.ts';
import { newMediaId } from '../../../src/demo/weixin/weixin-simulator.ts';
import { oneOf, positiveNumber } from '../../../src/operate/option-parsers.ts';
import { laneOf } from '../../../src/queue/lane.ts';
import { openLanes } from '../../../src/queue/open-lanes.ts';
import { closeRedis, connectRedis } from '../../../src/redis/connect.ts';
import { Secret } from '../../../src/secret.ts';
import { MINUTE, SECOND } from '../../../src/time.ts';
import { benchOptions, percent } from '../bench-options.ts';
import { pictureMessage, startIngest } from '../ingest-process.ts';
import { quantile } from '../quantile.ts';

const MODES: readonly PushMode[] = ['plaintext', 'compatible', 'safe'];
const { values, read } = benchOptions('bench:pushes', {
  rate: { type: 'string', default: '2000' },
  seconds: { type: 'string', default: '60' },
  mode: { type: 'string', default: 'safe' },
  repeated: { type: 'string', default: '10' },
  json: { type: 'boolean' },
});
const rate = Math.min(20_000, read('rate', positiveNumber));
const seconds = Math.min(600, read('seconds', positiveNumber));
const repeatedShare = read('repeated', percent) / 100;
const mode = read('mode', oneOf(MODES)) as PushMode;

const APP_ID = 'wx0123456789abcdef';
const TICK_MS = 5;
const CONNECTIONS = 100;
const PREFIX = '{weixin-media}';

await using parts = new AsyncDisposableStack();
const directory = await mkdtemp(join(tmpdir(), 'weixin-media-bench-'));
parts.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
const executable = await provideRedisServer(console.error);
const server = parts.use(await startRedisServer(executable, { directory: join(directory, 'redis'), appendOnly: true }));

const ingest = parts.use(
  await startIngest({ redisUrl: server.url, directory, appId: APP_ID, mode, connections: CONNECTIONS }),
);

const answerMs: number[] = [];
const statuses = new Map<number | string, number>();
const recent: SimulatedFields[] = [];
let media = 0;
let late = 0;

async function pushOne(): Promise<void> {
  let message = recent[Math.floor(Math.random() * recent.length)];
  if (message === undefined || Math.random() >= repeatedShare) {
    message = pictureMessage(newMediaId());
    media += 1;
    recent[media % 1_000] = message;
  }
  const push = ingest.pushOf(message);
  const startedAt = performance.now();
  const outcome = await ingest.send(push);
  const tookMs = performance.now() - startedAt;
  answerMs.push(tookMs);
  if (tookMs > 5 * SECOND) late += 1;
  statuses.set(outcome, (statuses.get(outcome) ?? 0) + 1);
}

const total = rate * seconds;
const startedAt = performance.now();
const { promise: allSent, resolve: endSending } = Promise.withResolvers<void>();
const underWay = new Set<Promise<void>>();
let sent = 0;
const ticks = setInterval(() => {
  const due = Math.min(total, Math.floor(((performance.now() - startedAt) / SECOND) * rate));
  for (; sent < due; sent += 1) {
    const one = pushOne().finally(() => underWay.delete(one));
    underWay.add(one);
  }
  if (sent === total) endSending();
}, TICK_MS);
await allSent;
clearInterval(ticks);
await Promise.all(underWay);
const tookSeconds = (performance.now() - startedAt) / SECOND;

const config = { url: new Secret(server.url), prefix: PREFIX, sentinelMaster: '' };
const redis = connectRedis(config, 'patient', 'bench', () => undefined);
parts.defer(() => closeRedis(redis));
const lanes = openLanes(redis, PREFIX, { lockMs: MINUTE, rescueEveryMs: MINUTE });
parts.defer(() => lanes.close());
const { waiting } = await lanes.lane(laneOf(APP_ID)).counts();

const sorted = answerMs.toSorted((a, b) => a - b);
const share = (part: number): number => Math.round(quantile(sorted, part) * 10) / 10;
const facts = {
  mode,
  pushes: sent,
  seconds: Math.round(tookSeconds * 10) / 10,
  pushesASecond: Math.round(sent / tookSeconds),
  answers: Object.fromEntries(statuses),
  late,
  media,
  queued: waiting,
  answerMs: { p50: share(0.5), p99: share(0.99), p999: share(0.999), max: share(1) },
};
const right = statuses.get('success') === sent && late === 0 && waiting === media;
if (values.json) console.log(JSON.stringify(facts));
else {
  const { p50, p99, p999, max } = facts.answerMs;
  console.log('| mode | pushes a second | pushes | answered `success` | media | queued | p50 | p99 | p99.9 | max |');
  console.log('|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|');
  console.log(
    `| ${mode} | ${facts.pushesASecond} | ${sent} | ${statuses.get('success') ?? 0} | ${media} | ${waiting} | ${p50} ms | ${p99} ms | ${p999} ms | ${max} ms |`,
  );
}
process.exitCode = right ? 0 : 1;
