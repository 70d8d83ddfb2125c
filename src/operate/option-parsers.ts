import { InvalidArgumentError } from 'commander';
import { byteSize } from '../config-values.ts';
import { appIdSchema } from '../media/media-job.ts';
import { DAY, HOUR, iso, MINUTE, SECOND } from '../time.ts';
import { isLetterAppId } from './media-name.ts';

// What options of the command line may hold. Each returns the value, or throws an InvalidArgumentError that says what is expected.

/** Slower, and the store would take an object that is being read for abandoned. */
const MIN_BYTE_RATE = 64 * 1024;

export function letterAppId(text: string): string {
  if (!isLetterAppId(text)) throw new InvalidArgumentError('"wx" and 16 hexadecimal digits are expected');
  return text;
}

export function ownAppId(text: string): string {
  if (!appIdSchema.safeParse(text).success)
    throw new InvalidArgumentError('"wx" and 16 hexadecimal digits are expected');
  return text;
}

export function byteRate(text: string): number {
  const size = byteSize(text);
  if (size === undefined || size < MIN_BYTE_RATE) throw new InvalidArgumentError('64KiB or more is expected');
  return size;
}

export function wholeNumber(text: string): number {
  if (!/^-?\d{1,9}$/.test(text)) throw new InvalidArgumentError('a whole number is expected');
  return Number(text);
}

export function positiveNumber(text: string): number {
  const value = Number(text);
  if (!(value > 0) || !Number.isFinite(value)) throw new InvalidArgumentError('a number above 0 is expected');
  return value;
}

export function positiveWholeNumber(text: string): number {
  const value = wholeNumber(text);
  if (value < 1) throw new InvalidArgumentError('a whole number above 0 is expected');
  return value;
}

export function oneOf(words: readonly string[]): (text: string) => string {
  return (text) => {
    if (!words.includes(text)) throw new InvalidArgumentError(`expected one of ${words.join(', ')}`);
    return text;
  };
}

const UNITS: Readonly<Record<string, number>> = { s: SECOND, min: MINUTE, h: HOUR, d: DAY };

/** An instant, or how long ago. */
export function instant(text: string): number {
  const [, count, unit] = /^(\d{1,6})(s|min|h|d)$/.exec(text) ?? [];
  if (count !== undefined && unit !== undefined) return Date.now() - Number(count) * (UNITS[unit] ?? 0);
  const time = /^\d{4}-\d{2}-\d{2}/.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time)) throw new InvalidArgumentError('an ISO-8601 time, or 90min, 24h, 7d is expected');
  return time;
}

export function wholeDay(text: string): number {
  const time = /^\d{4}-\d{2}-\d{2}$/.test(text) ? Date.parse(text) : Number.NaN;
  // 30 February is 2 March to it.
  if (Number.isNaN(time) || !iso(time).startsWith(text))
    throw new InvalidArgumentError('a day is expected: YYYY-MM-DD');
  return time;
}
