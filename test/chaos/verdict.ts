import type { DeadLetter } from '../../src/dead-letter/dead-letter.ts';
import { laneOf } from '../../src/queue/lane.ts';
import { parseStoredJob } from '../../src/queue/stored-job.ts';
import type { StoredObject } from '../../src/store/archive-store.ts';
import { deadLetterKey, mediaKeyStem } from '../../src/store/object-keys.ts';
import { MINUTE } from '../../src/time.ts';
import { APP_SECRET } from '../support/jobs.ts';
import { dumpRedis, keysBelow, lettersOf, linesOf, type Stack } from '../support/stack.ts';
import { OTHER_APP_SECRET } from '../system/more-apps.ts';
import { judgeCatalog } from './cataloguer.ts';
import type { Finding } from './findings.ts';
import { OPEN_ID_PREFIX, type Wish } from './wishes.ts';
import type { World } from './world.ts';

/** What lies there in the end. */
export interface Verdict {
  readonly archived: number;
  readonly deadLettered: Readonly<Record<string, number>>;
  readonly bytes: number;
  readonly findings: readonly Finding[];
}

const READERS = 8;

/**
 * Compares what was handed in with what lies in the bucket, in Redis and in the logs. To be called when all is calm and
 * nothing is left to do.
 */
export async function judge(world: World): Promise<Verdict> {
  const { stack, store, crew, cataloguer, handedIn } = world;
  const findings: Finding[] = [...crew.findings, ...cataloguer.findings];
  const wishes = [...handedIn.accepted.values()];
  const letters = new Map<string, DeadLetter>(
    (await lettersOf(stack)).map((letter) => [`${letter.appId}-${letter.mediaId}`, letter] as const),
  );
  const byStem = Map.groupBy(await keysBelow(stack, 'media/'), (key) => key.slice(0, key.lastIndexOf('.')));
  const texts: string[] = [];
  let bytes = 0;
  let archived = 0;

  async function judgeWish(wish: Wish): Promise<void> {
    const { jobId, job, destiny, media } = wish;
    const say = (what: string, detail?: string): void => {
      findings.push({ what, jobId, ...(detail === undefined ? {} : { detail }) });
    };
    const keys = byStem.get(mediaKeyStem(job)) ?? [];
    const letter = letters.get(jobId);
    if (destiny.end === 'dead') {
      if (keys.length > 0) say('stored although it can not be had', keys.join(' '));
      for (const mistake of mistakesOfLetter(letter, wish, destiny.reasons)) say(mistake, JSON.stringify(letter));
      return;
    }
    const [key, ...others] = keys;
    if (key === undefined || others.length > 0)
      return say('not archived at one key', `${keys.join(' ')} ${JSON.stringify(letter)}`);
    archived += 1;
    if (
      letter !== undefined &&
      (destiny.end !== 'archived-by-replay' || letter.status !== 'resolved' || letter.archivedKey !== key)
    )
      say('archived, and a dead letter says otherwise', JSON.stringify(letter));
    const signal = AbortSignal.timeout(MINUTE);
    const digest = await stack.opened.store.digest(key, signal);
    if (!digest.ok || digest.value?.sha256 !== media?.bytes.sha256) say('other bytes than WeChat had', key);
    const head = await stack.opened.store.head(key, signal);
    if (!head.ok || head.value === undefined) return say('no metadata', key);
    bytes += head.value.sizeBytes;
    texts.push(JSON.stringify(head.value));
    for (const mistake of mistakesOfMetadata(head.value, wish)) say(mistake, JSON.stringify(head.value));
  }

  const queue = wishes.values();
  await Promise.all(
    Array.from({ length: READERS }, async () => {
      for (const wish of queue) await judgeWish(wish);
    }),
  );

  const known = new Set(wishes.flatMap(({ job }) => [mediaKeyStem(job), deadLetterKey(job).replace(/\.json$/, '')]));
  for (const key of await keysBelow(stack, '')) {
    if (/^(catalog|manifests|annotations)\//.test(key)) continue;
    if (!known.has(key.slice(0, key.lastIndexOf('.'))))
      findings.push({ what: 'an object nobody asked for', detail: key });
  }
  findings.push(...(await judgeCatalog(stack, wishes)));
  for (const key of store.openUploads()) findings.push({ what: 'an open multipart upload', detail: key });
  findings.push(...(await leftInRedis(world, letters)), ...said(crew.logs()));
  texts.push(
    ...crew.logs(),
    ...cataloguer.logs(),
    await dumpRedis(stack.redis),
    ...[...letters.values()].map((letter) => JSON.stringify(letter)),
  );
  findings.push(...leaks(world, texts));

  const reasons = Object.groupBy(
    [...letters.values()].filter(({ status }) => status === 'open'),
    ({ reason }) => reason,
  );
  const deadLettered = Object.fromEntries(Object.entries(reasons).map(([reason, of]) => [reason, of?.length ?? 0]));
  return { archived, deadLettered, bytes, findings };
}

function* mistakesOfLetter(
  letter: DeadLetter | undefined,
  { job }: Wish,
  reasons: readonly string[],
): Generator<string> {
  if (letter === undefined) return yield 'lost: neither archived nor a dead letter';
  const { source: _dropped, ...kept } = job;
  const { source, ...ofLetter } = letter.job as Wish['job'];
  const messageId = job.source?.messageId;
  if (JSON.stringify(sorted(ofLetter)) !== JSON.stringify(sorted(kept))) yield 'a dead letter of another job';
  if (source?.messageId !== messageId) yield 'a dead letter without its message';
  if (!reasons.includes(letter.reason)) yield 'dead for another reason';
  if (letter.status !== 'open') yield 'a dead letter that is not open';
  if (letter.attempts.length === 0 || letter.firstAttemptAt !== letter.attempts[0]?.at)
    yield 'a dead letter without its history';
}

function* mistakesOfMetadata({ metadata, sizeBytes }: StoredObject, { job, media }: Wish): Generator<string> {
  if (sizeBytes !== media?.bytes.sizeBytes) yield 'an object of another size';
  if (metadata['media-id'] !== job.mediaId || metadata['app-id'] !== job.appId) yield 'the metadata of another media';
  const sha256 = metadata['sha256'];
  if (sha256 !== undefined && sha256 !== media?.bytes.sha256) yield 'metadata with another hash';
}

function sorted(job: object): object {
  return Object.fromEntries(Object.entries(job).toSorted());
}

/** Jobs, locks and entries that should be gone; an index that differs from the bucket. */
async function leftInRedis({ stack }: World, letters: ReadonlyMap<string, DeadLetter>): Promise<Finding[]> {
  const { queue, redis, config } = stack;
  const findings: Finding[] = [];
  for (const appId of config.accounts.map((account) => account.appId)) {
    const lane = queue.lanes.lane(laneOf(appId));
    const { waiting, delayed, active, failed } = await lane.counts();
    if (waiting + delayed + active + failed > 0)
      findings.push({ what: 'jobs are left', detail: JSON.stringify({ appId, waiting, delayed, active, failed }) });
    for (const key of await redis.keys(lane.keyOfJob(`${appId}-*`).replace(/[{}[\]]/g, '\\$&')))
      findings.push({ what: 'a trace of a job is left', detail: `${key} ${await lastAttemptOf(redis, key)}` });
  }
  const listed = new Set<string>();
  for await (const { jobId } of queue.deadLetterIndex.list({})) listed.add(jobId);
  const open = new Set([...letters].filter(([, { status }]) => status === 'open').map(([jobId]) => jobId));
  for (const jobId of listed) if (!open.has(jobId)) findings.push({ what: 'listed, but no open dead letter', jobId });
  for (const jobId of open) if (!listed.has(jobId)) findings.push({ what: 'an open dead letter, not listed', jobId });
  return findings;
}

async function lastAttemptOf(redis: Stack['redis'], key: string): Promise<string> {
  const data = (await redis.type(key)) === 'hash' ? await redis.hget(key, 'data') : null;
  const parsed = parseStoredJob(data ?? '');
  return parsed.ok ? JSON.stringify(parsed.stored.ledger.attempts.at(-1)) : '';
}

/** No media may be said to be archived twice. */
function said(logs: readonly string[]): Finding[] {
  const archivedBy = new Map<string, number>();
  for (const line of logs.flatMap(linesOf)) {
    if (!line.includes('"msg":"archived"')) continue;
    const { appId, mediaId } = JSON.parse(line) as { appId: string; mediaId: string };
    archivedBy.set(`${appId}-${mediaId}`, (archivedBy.get(`${appId}-${mediaId}`) ?? 0) + 1);
  }
  return [...archivedBy]
    .filter(([, times]) => times > 1)
    .map(([jobId, times]) => ({ what: 'said to be archived more than once', jobId, detail: `${times} times` }));
}

/** Secrets and openIds in what anybody may read. */
function leaks({ stack, store: _ }: World, texts: readonly string[]): Finding[] {
  const secrets = [
    ...stack.simulator.issuedTokens().map((token): [string, string] => ['an access_token', token]),
    ['an AppSecret', APP_SECRET] as const,
    ['an AppSecret', OTHER_APP_SECRET] as const,
    ["the store's secret key", stack.environment['AWS_SECRET_ACCESS_KEY'] ?? APP_SECRET] as const,
    ['an openId', OPEN_ID_PREFIX] as const,
  ];
  return secrets
    .filter(([, secret]) => texts.some((text) => text.includes(secret)))
    .map(([name]) => ({ what: `${name} in a log, in Redis or in the bucket` }));
}
