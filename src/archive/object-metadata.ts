import { MEDIA_VARIANTS, type MediaJob, type MediaVariant } from '../media/media-job.ts';
import { extensionOfType } from '../media/media-type.ts';
import { kindPartitionOf } from '../store/object-keys.ts';
import { iso } from '../time.ts';
import { VERSION } from '../version.ts';
import type { MediaBody } from '../weixin/media-body.ts';

/** The version of the metadata below. */
const SCHEMA = '1';

/** S3 takes 2 KB in all, names and values. Some stores count the prefix of each name too. */
const MAX_METADATA_BYTES = 2_048;
const NAME_PREFIX = 'x-amz-meta-';

/** An openId must not stand in metadata in clear. A pseudonym may. */
const PSEUDONYM = /^hmac-sha256:[0-9a-f]{64}$/;
const ENCODED = 'base64url:';

type BodyFacts = Pick<MediaBody, 'declaredType' | 'sniffed' | 'namedExtension'>;

/** The type an object is served as: what its bytes say, else what WeChat says. */
export function contentTypeOf({ sniffed, declaredType }: BodyFacts): string {
  return sniffed?.mime ?? declaredType ?? 'application/octet-stream';
}

/** The extension of an object's key: what its bytes say, else its declared type, else its name. */
export function extensionOf({ sniffed, declaredType, namedExtension }: BodyFacts): string {
  return sniffed?.extension ?? extensionOfType(declaredType) ?? namedExtension ?? 'bin';
}

/** What the queue knows of the attempt that archives a media. Unix times in milliseconds. */
export interface AttemptFacts {
  /** Absent where the producer said something that is no time. */
  readonly enqueuedAt?: number;
  readonly startedAt: number;
  /** From 1. */
  readonly attempt: number;
  readonly deadline: number;
}

/** What a producer said of a media, of whatever length. */
export interface Annotations {
  readonly messageId?: string;
  /** As the policy keeps it. */
  readonly openId?: string;
  readonly labels?: Readonly<Record<string, string>>;
}

export interface Described {
  readonly metadata: Readonly<Record<string, string>>;
  /** What is too long for metadata, and must lie at `annotationsKey` before the object does. */
  readonly annotations?: Annotations;
}

/**
 * The user metadata of an archived object: everything that is known of it, so that the object alone is enough to
 * describe it. ASCII, no openId in clear.
 *
 * @param sha256 known only for bodies that are held before they are sent.
 */
export function describeObject(
  job: MediaJob,
  body: BodyFacts,
  attempt: AttemptFacts | undefined,
  archivedAt: string,
  sha256?: string,
): Described {
  const metadata: Record<string, string> = {
    'app-id': job.appId,
    'media-id': job.mediaId,
    kind: kindPartitionOf(job),
    'received-at': job.receivedAt,
    'archived-at': archivedAt,
    ...(sha256 === undefined ? {} : { sha256 }),
    ...(job.variant === undefined ? {} : { variant: job.variant }),
    ...(body.declaredType === undefined ? {} : { 'source-type': body.declaredType }),
    ...(body.sniffed === undefined ? {} : { 'sniffed-type': body.sniffed.mime }),
    ...(attempt === undefined ? {} : attemptMetadata(attempt)),
    'worker-version': VERSION,
    schema: SCHEMA,
  };
  const { messageId, openId } = job.source ?? {};
  const said: Annotations = {
    ...(messageId === undefined ? {} : { messageId: messageId.toWellFormed() }),
    ...(openId === undefined ? {} : { openId: openId.toWellFormed() }),
    ...(job.labels === undefined || Object.keys(job.labels).length === 0 ? {} : { labels: wellFormed(job.labels) }),
  };
  const short = annotationMetadata(said);
  const whole = { ...metadata, ...short };
  if (bytesOf(whole) <= MAX_METADATA_BYTES) return { metadata: whole };
  return { metadata: { ...metadata, annotations: 'apart' }, annotations: said };
}

function attemptMetadata({ enqueuedAt, startedAt, attempt, deadline }: AttemptFacts): Record<string, string> {
  return {
    ...(enqueuedAt === undefined ? {} : { 'enqueued-at': iso(enqueuedAt) }),
    'started-at': iso(startedAt),
    attempts: String(attempt),
    deadline: iso(deadline),
  };
}

function annotationMetadata({ messageId, openId, labels }: Annotations): Record<string, string> {
  return {
    ...(messageId === undefined ? {} : { 'message-id': encodeURIComponent(messageId) }),
    ...(openId === undefined ? {} : { 'open-id': PSEUDONYM.test(openId) ? openId : ENCODED + base64url(openId) }),
    ...(labels === undefined ? {} : { labels: base64url(JSON.stringify(labels)) }),
  };
}

function bytesOf(metadata: Readonly<Record<string, string>>): number {
  return Object.entries(metadata).reduce(
    (sum, [name, value]) => sum + NAME_PREFIX.length + name.length + value.length,
    0,
  );
}

/** Halves of surrogate pairs have no place in UTF-8. */
function wellFormed(labels: Readonly<Record<string, string>>): Record<string, string> {
  return Object.fromEntries(Object.entries(labels).map(([name, value]) => [name, value.toWellFormed()]));
}

/** What an archived object says of itself. Unix times in milliseconds. */
export interface ObjectFacts extends Annotations {
  readonly appId: string;
  readonly mediaId: string;
  readonly kind: string;
  readonly variant?: MediaVariant;
  readonly receivedAt: number;
  readonly archivedAt: number;
  readonly declaredType?: string;
  readonly sniffedType?: string;
  /** Absent in objects of earlier versions, as the next ones. */
  readonly enqueuedAt?: number;
  readonly startedAt?: number;
  readonly attempts?: number;
  readonly deadline?: number;
  readonly workerVersion?: string;
  /** True when messageId, openId and labels lie at `annotationsKey`. */
  readonly hasAnnotationsApart: boolean;
}

/** Reads the metadata of an object; `undefined` where they are not ours. */
export function factsOf(metadata: Readonly<Record<string, string>>): ObjectFacts | undefined {
  const { kind, variant, attempts, annotations } = metadata;
  const [appId, mediaId] = [metadata['app-id'], metadata['media-id']];
  const [receivedAt, archivedAt] = [instant(metadata['received-at']), instant(metadata['archived-at'])];
  if (appId === undefined || mediaId === undefined || kind === undefined) return undefined;
  if (receivedAt === undefined || archivedAt === undefined) return undefined;
  return definedOf({
    appId,
    mediaId,
    kind,
    variant: MEDIA_VARIANTS.find((known) => known === variant),
    receivedAt,
    archivedAt,
    declaredType: metadata['source-type'],
    sniffedType: metadata['sniffed-type'],
    enqueuedAt: instant(metadata['enqueued-at']),
    startedAt: instant(metadata['started-at']),
    attempts: attempts !== undefined && /^\d{1,9}$/.test(attempts) ? Number(attempts) : undefined,
    deadline: instant(metadata['deadline']),
    workerVersion: metadata['worker-version'],
    messageId: decoded(metadata['message-id'], decodeURIComponent),
    openId: decoded(metadata['open-id'], (text) =>
      text.startsWith(ENCODED) ? fromBase64url(text.slice(ENCODED.length)) : text,
    ),
    labels: decoded(metadata['labels'], (text) => labelsOf(JSON.parse(fromBase64url(text)))),
    hasAnnotationsApart: annotations !== undefined,
  });
}

/** Reads what lies at `annotationsKey`. */
export function annotationsOf(document: unknown): Annotations {
  if (typeof document !== 'object' || document === null) return {};
  const { messageId, openId, labels } = document as Record<string, unknown>;
  return definedOf({
    messageId: typeof messageId === 'string' ? messageId : undefined,
    openId: typeof openId === 'string' ? openId : undefined,
    labels: labelsOf(labels),
  });
}

function labelsOf(value: unknown): Record<string, string> | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  const labels = Object.entries(value).filter(([, text]) => typeof text === 'string');
  return labels.length === 0 ? undefined : (Object.fromEntries(labels) as Record<string, string>);
}

function instant(text: string | undefined): number | undefined {
  const time = Date.parse(text ?? '');
  return Number.isNaN(time) ? undefined : time;
}

/** What somebody else has written there counts as nothing. */
function decoded<T>(text: string | undefined, decode: (text: string) => T): T | undefined {
  if (text === undefined) return undefined;
  try {
    return decode(text);
  } catch {
    return undefined;
  }
}

function base64url(text: string): string {
  return Buffer.from(text).toString('base64url');
}

function fromBase64url(text: string): string {
  return Buffer.from(text, 'base64url').toString();
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

function definedOf<T extends object>(value: T): Defined<T> {
  const defined: Record<string, unknown> = {};
  for (const name in value) if (value[name] !== undefined) defined[name] = value[name];
  return defined as Defined<T>;
}
