import { appIdSchema } from '../media/media-job.ts';
import { HOUR } from '../time.ts';

/** What setTimeout can count. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** As of MEDIA_TTL_HOURS. One that is below was meant in hours. */
const [MIN_TTL_MS, MAX_TTL_MS] = [0.01 * HOUR, 365 * 24 * HOUR];
/** As of ARCHIVE_OPEN_ID_KEY. */
const MIN_KEY_LENGTH = 16;
const MAX_REPLICAS = 10;

interface Option {
  readonly expected: string;
  readonly isRight: (value: unknown) => boolean;
}

/** Judged where the connection is opened. */
const ADDRESS: Option = { expected: '', isRight: () => true };

const OPTIONS: Readonly<Record<string, Option>> = {
  connection: ADDRESS,
  redisUrl: ADDRESS,
  sentinels: ADDRESS,
  clusterNodes: ADDRESS,
  sentinelMaster: {
    expected: 'a name',
    isRight: (value) => typeof value === 'string' && value !== '',
  },
  waitReplicas: {
    expected: `a whole number from 0 to ${MAX_REPLICAS}`,
    isRight: (value) => Number.isInteger(value) && isWithin(value, 0, MAX_REPLICAS),
  },
  prefix: {
    expected: 'letters, digits and _ - . { }',
    isRight: (value) => typeof value === 'string' && /^[A-Za-z0-9_{}.-]+$/.test(value),
  },
  mediaTtlMs: {
    expected: `milliseconds from ${MIN_TTL_MS} to ${MAX_TTL_MS}`,
    isRight: (value) => isWithin(value, MIN_TTL_MS, MAX_TTL_MS),
  },
  appIds: {
    expected: 'an array of appIds, one at least,',
    isRight: (value) =>
      Array.isArray(value) && value.length > 0 && value.every((appId) => appIdSchema.safeParse(appId).success),
  },
  openIdKey: {
    expected: `a secret of ${MIN_KEY_LENGTH} characters or more`,
    isRight: (value) => typeof value === 'string' && value.length >= MIN_KEY_LENGTH,
  },
  timeoutMs: {
    expected: `a whole number of milliseconds from 1 to ${MAX_TIMEOUT_MS}`,
    isRight: (value) => Number.isInteger(value) && isWithin(value, 1, MAX_TIMEOUT_MS),
  },
  onError: {
    expected: 'a function',
    isRight: (value) => typeof value === 'function',
  },
};

/**
 * Looks at the options of a producer, but for those that say where Redis is. One that is `undefined` is absent; one that
 * is not known is refused, since a misspelt `appIds` would let in any app.
 *
 * @throws TypeError that names the option, and never repeats its value.
 */
export function checkProducerOptions(options: unknown): void {
  if (typeof options !== 'object' || options === null) throw new TypeError('options: an object is expected');
  for (const [name, value] of Object.entries(options)) {
    const option = Object.hasOwn(OPTIONS, name) ? OPTIONS[name] : undefined;
    if (option === undefined)
      throw new TypeError(`${name}: there is no such option, but ${Object.keys(OPTIONS).join(', ')}`);
    if (value !== undefined && !option.isRight(value)) throw new TypeError(`${name}: ${option.expected} is expected`);
  }
}

function isWithin(value: unknown, min: number, max: number): boolean {
  return typeof value === 'number' && value >= min && value <= max;
}
