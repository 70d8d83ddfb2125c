import { createHash } from 'node:crypto';
import { describeObject } from '../../../src/archive/object-metadata.ts';
import { type MediaRow, mediaRowOf } from '../../../src/catalog/media-table.ts';
import type { MediaKind } from '../../../src/media/kind.ts';
import type { MediaJob } from '../../../src/media/media-job.ts';
import { mediaKey } from '../../../src/store/object-keys.ts';
import { DAY, HOUR, iso, MINUTE, SECOND } from '../../../src/time.ts';

/** How many media, of how many apps, sent on how many days; the first of the days began at `since`. */
export interface Sample {
  readonly rows: number;
  readonly apps: number;
  readonly days: number;
  /** Unix time in milliseconds, the beginning of a UTC day. */
  readonly since: number;
}

const FORMATS = [
  { kind: 'image', mime: 'image/jpeg', extension: 'jpg', sizeBytes: 180_000 },
  { kind: 'image', mime: 'image/jpeg', extension: 'jpg', sizeBytes: 90_000 },
  { kind: 'image', mime: 'image/png', extension: 'png', sizeBytes: 240_000 },
  { kind: 'voice', mime: 'audio/amr', extension: 'amr', sizeBytes: 12_000 },
  { kind: 'video', mime: 'video/mp4', extension: 'mp4', sizeBytes: 2_400_000 },
] as const satisfies readonly { kind: MediaKind; mime: string; extension: string; sizeBytes: number }[];

const PEOPLE_FOR_EACH_APP = 5_000;
const TTL_MS = 72 * HOUR;

export function appIdOf(index: number): string {
  return `wx${hex(`app ${index}`).slice(0, 16)}`;
}

/** The media with this number: the same each time, whoever asks. */
export function mediaOf(
  index: number,
  { apps, days, since }: Sample,
): { readonly key: string; readonly row: MediaRow } {
  const random = createHash('sha512').update(`media ${index}`).digest();
  const format = FORMATS[random.readUInt8(0) % FORMATS.length] ?? FORMATS[0];
  const app = index % apps;
  // All apps have media on all days.
  const day = Math.floor(index / apps) % days;
  const receivedAt = since + day * DAY + (random.readUInt32BE(4) % DAY);
  const archivedAt = receivedAt + 2 * SECOND + (random.readUInt32BE(8) % MINUTE);
  const job: MediaJob = {
    v: 1,
    appId: appIdOf(app),
    mediaId: random.subarray(0, 48).toString('base64url'),
    kind: format.kind,
    receivedAt: iso(receivedAt),
    source: {
      messageId: String(6_089_239_057_000_000_000n + random.readBigUInt64BE(8) / 8_192n),
      openId: `hmac-sha256:${hex(`${app} ${random.readUInt16BE(20) % PEOPLE_FOR_EACH_APP}`)}`,
    },
    ...(random.readUInt8(1) % 4 === 0
      ? { labels: { ticket: `T-${random.readUInt32BE(24)}`, campaign: `spring-${random.readUInt8(2) % 8}` } }
      : {}),
  };
  const sha256 = hex(`bytes ${index}`);
  const body = {
    declaredType: format.mime,
    sniffed: { mime: format.mime, extension: format.extension },
    isEndUnproven: false,
  };
  const attempt = {
    enqueuedAt: receivedAt + SECOND,
    startedAt: archivedAt - SECOND,
    attempt: 1 + (random.readUInt8(3) % 20 === 0 ? 1 : 0),
    deadline: receivedAt + TTL_MS,
  };
  const { metadata } = describeObject(job, body, attempt, iso(archivedAt), sha256);
  const key = mediaKey(job, format.extension);
  const sizeBytes = format.sizeBytes + (random.readUInt32BE(12) % format.sizeBytes);
  const row = mediaRowOf({ key, sizeBytes, sha256, contentType: format.mime, metadata, etag: sha256.slice(0, 32) });
  if (row === undefined) throw new Error('metadata that are not ours');
  return { key, row };
}

function hex(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
