import { createHash } from 'node:crypto';
import { gzipSync } from 'node:zlib';
import { CreateMultipartUploadCommand, UploadPartCommand } from '@aws-sdk/client-s3';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import type { SimulatedMedia } from '../../src/demo/weixin/simulated-media.ts';
import type { MediaJob } from '../../src/media/media-job.ts';
import { pseudonymOf } from '../../src/media/open-id.ts';
import { Secret } from '../../src/secret.ts';
import { dayOf } from '../../src/store/object-keys.ts';
import { iso } from '../../src/time.ts';
import { catalogRows, filesOf } from './catalog.ts';
import { eventually } from './eventually.ts';
import { APP_ID } from './jobs.ts';
import { jobOf, keysBelow, type Stack, untilIdle } from './stack.ts';

const DAY_MS = 86_400_000;
const never = new AbortController().signal;

export const OPERATOR_KEY = 'a-key-of-the-operator-0123456789';

/** Somebody whose traces lie everywhere. */
export interface Person {
  readonly openId: string;
  readonly media: readonly SimulatedMedia[];
}

export interface Traced {
  /** To be erased. */
  readonly victim: Person;
  readonly other: Person;
  /** All lines of the manifest, before. */
  readonly lines: readonly string[];
}

/** What one has sent: `long` labels lie apart from the object. */
export function jobsOf({ openId, media }: Person): MediaJob[] {
  return media.map((one, index) => ({
    ...jobOf(one),
    source: { openId, messageId: `msg-${one.mediaId.slice(0, 12)}` },
    ...(index % 5 === 0
      ? {
          labels: {
            note: 'x'.repeat(250),
            a: 'y'.repeat(256),
            b: 'z'.repeat(256),
            c: 'w'.repeat(256),
            d: 'v'.repeat(256),
            e: 'u'.repeat(256),
            f: 't'.repeat(250),
            g: 's'.repeat(250),
          },
        }
      : {}),
  }));
}

/**
 * Lets two people send media, and leaves traces of both in every place: objects with and without rows, letters, jobs that
 * wait, the outbox, derived files, a manifest, a report of a verification, an upload that was never ended, payloads of
 * other programs. Nothing runs afterwards.
 */
export async function leaveTraces(stack: Stack): Promise<Traced> {
  const files = filesOf(stack);
  const people = ['oVictimVictimVictimVictim_-01', 'oOtherOtherOtherOtherOther_02'].map(
    (openId): Person => ({
      openId,
      media: [...stack.addMedia(7), ...stack.addMedia(3, { format: 'amr', ageMs: DAY_MS })],
    }),
  );
  const gone = people.map(() => stack.addMedia(2, { ageMs: 4 * DAY_MS }));
  const late = people.map(() => stack.addMedia(2));
  const waiting = people.map(() => stack.addMedia(2));
  const [victim, other] = people.map(({ openId, media }, index) => ({
    openId,
    media: [...media, ...(gone[index] ?? []), ...(late[index] ?? []), ...(waiting[index] ?? [])],
  }));
  if (victim === undefined || other === undefined) throw new Error('nobody is there');

  // Archived, dead, and in the catalog.
  const worker = stack.worker();
  const catalog = stack.catalog({ CATALOG_FLUSH_ROWS: '5', CATALOG_FLUSH_SECONDS: '0.1' });
  const isEarly = ({ mediaId }: MediaJob): boolean =>
    ![...late, ...waiting].flat().some((one) => one.mediaId === mediaId);
  await stack.queue.door.admit([victim, other].flatMap(jobsOf).filter(isEarly));
  await untilIdle(stack);
  await eventually(async () => ((await stack.redis.xlen(stack.queue.keys.outbox)) === 0 ? true : undefined));
  await catalog.stop();

  // Archived, and in the outbox alone.
  await stack.queue.door.admit(
    [victim, other].flatMap(jobsOf).filter(({ mediaId }) => late.flat().some((one) => one.mediaId === mediaId)),
  );
  await untilIdle(stack);
  await worker.stop();

  // Waiting.
  await stack.queue.door.admit(
    [victim, other].flatMap(jobsOf).filter(({ mediaId }) => waiting.flat().some((one) => one.mediaId === mediaId)),
  );
  const connection = new Redis(stack.environment['REDIS_URL'] ?? '', { maxRetriesPerRequest: null });
  const inbox = new Queue('media', { connection, prefix: stack.config.redis.prefix });
  for (const { openId, media } of [victim, other]) {
    const [first] = media;
    if (first === undefined) continue;
    await inbox.add('archive', { ...jobOf(first), source: { openId } });
    await inbox.add('archive', { wrong: 'payload', to: openId, about: [first.mediaId] }, { delay: 3_600_000 });
  }
  await inbox.close();
  connection.disconnect();

  // What other parts leave.
  const lines: string[] = [];
  for (const key of await keysBelow(stack, 'media/')) {
    // A manifest is made of rows, and a report names what should have one.
    if (!late.flat().some(({ mediaId }) => key.includes(mediaId)))
      lines.push(JSON.stringify({ key, size: 1, sha256: createHash('sha256').update(key).digest('hex') }));
    const [, rest = ''] = /^media\/(.*)\.[a-z0-9]+$/.exec(key) ?? [];
    await files.putBytes(`derived/${rest}/thumbnail.jpg`, Buffer.from('small'), 'image/jpeg', never);
  }
  const dt = dayOf(iso(Date.now()));
  const packed = gzipSync(lines.map((line) => `${line}\n`).join(''));
  await files.putBytes(`manifests/dt=${dt}/00000001-objects.ndjson.gz`, packed, 'application/gzip', never);
  const report = { v: 1, mismatched: lines.map((line) => ({ key: (JSON.parse(line) as { key: string }).key })) };
  await files.putBytes(`verifications/${dt}.json`, Buffer.from(JSON.stringify(report)), 'application/json', never);
  const letter = {
    v: 1,
    appId: 'unknown',
    mediaId: '7',
    job: { said: `by ${victim.openId}` },
    reason: 'job-invalid',
    firstAttemptAt: null,
    diedAt: iso(Date.now()),
    deadline: null,
    attempts: [],
    status: 'open',
    replays: [],
  };
  await stack.opened.deadLetters.bury(
    'invalid:7',
    `dead-letters/app=unknown/dt=${dt}/invalid-${'0'.repeat(64)}.json`,
    letter as never,
    never,
  );
  for (const { media } of [victim, other]) {
    const Key = `media/app=${APP_ID}/kind=video/dt=${dt}/${media[0]?.mediaId}.mp4`;
    const { UploadId } = await stack.s3Client.send(new CreateMultipartUploadCommand({ Bucket: stack.s3.bucket, Key }));
    await stack.s3Client.send(
      new UploadPartCommand({ Bucket: stack.s3.bucket, Key, UploadId, PartNumber: 1, Body: Buffer.from('part') }),
    );
  }
  if ((await catalogRows(stack, 'media')).length === 0) throw new Error('there is no catalog');
  return { victim, other, lines };
}

/** By what texts somebody would be found. */
export function needlesOf({ openId, media }: Person): Record<string, string> {
  const pseudonym = pseudonymOf(APP_ID, openId, new Secret(OPERATOR_KEY));
  return {
    openId,
    pseudonym: pseudonym.slice('hmac-sha256:'.length),
    'openId in base64url': Buffer.from(openId).toString('base64url'),
    ...Object.fromEntries(media.map(({ mediaId }, index) => [`media ${index}`, mediaId])),
  };
}
