import {
  DuckDBBlobValue,
  DuckDBDateValue,
  DuckDBDecimalValue,
  DuckDBMapType,
  DuckDBMapValue,
  DuckDBTimestampMillisecondsValue,
  DuckDBTimestampSecondsValue,
  DuckDBTimestampTZValue,
  DuckDBTimestampValue,
  DuckDBTypeId,
  type DuckDBValueConverter,
  type Json,
  JsonDuckDBValueConverter,
} from '@duckdb/node-api';

/** Decimals of so many digits are the same again when a JSON number was made of them. */
const EXACT_DECIMAL = 10n ** 15n;
/** The instants that a `Date` can be, in microseconds. */
const MAX_DATE_MICROS = 8_640_000_000_000_000_000n;

/**
 * Makes of a value of whichever type what JSON has for it:
 * - a number is a JSON number, or its digits as text where a double can't hold it (whole ones beyond 2^53, decimals of
 *   more than 15 digits, NaN, Infinity);
 * - an instant is ISO-8601 in UTC; a TIMESTAMP without a zone has none; a DATE is `YYYY-MM-DD`;
 * - a MAP is an object, an empty one too; keys that are no texts are written as JSON;
 * - a BLOB is hexadecimal; an INTERVAL and what else JSON knows nothing of is text as DuckDB shows it.
 */
export const jsonValue: DuckDBValueConverter<Json> = (value, type, convert) => {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isFinite(value) ? value : String(value);
  if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : String(value);
  if (value instanceof DuckDBDecimalValue) {
    const digits = value.value < 0n ? -value.value : value.value;
    return digits < EXACT_DECIMAL ? Number(String(value)) : String(value);
  }
  if (value instanceof DuckDBTimestampTZValue) return isoOf(value.micros, 'Z') ?? String(value);
  if (value instanceof DuckDBTimestampValue) return isoOf(value.micros, '') ?? String(value);
  if (value instanceof DuckDBTimestampMillisecondsValue) return isoOf(value.millis * 1000n, '') ?? String(value);
  if (value instanceof DuckDBTimestampSecondsValue) return isoOf(value.seconds * 1_000_000n, '') ?? String(value);
  if (value instanceof DuckDBDateValue && !value.isFinite) return value.days > 0 ? 'infinity' : '-infinity';
  if (value instanceof DuckDBBlobValue) return Buffer.from(value.bytes).toString('hex');
  if (type.typeId === DuckDBTypeId.INTERVAL) return String(value);
  if (value instanceof DuckDBMapValue && type instanceof DuckDBMapType) {
    const entries = value.entries.map(({ key, value: inner }): [string, Json] => {
      const name = convert(key, type.keyType, convert);
      return [typeof name === 'string' ? name : JSON.stringify(name), convert(inner, type.valueType, convert)];
    });
    return Object.fromEntries(entries);
  }
  return JsonDuckDBValueConverter(value, type, convert);
};

/** `MAP {}` has keys of no type. */
/** `undefined` for infinity, and for what is beyond the reach of ISO-8601 as it is mostly read. */
function isoOf(micros: bigint, zone: 'Z' | ''): string | undefined {
  if (micros > MAX_DATE_MICROS || micros < -MAX_DATE_MICROS) return undefined;
  const fraction = ((micros % 1000n) + 1000n) % 1000n;
  const text = new Date(Number((micros - fraction) / 1000n)).toISOString().slice(0, -1);
  return `${text}${fraction === 0n ? '' : String(fraction).padStart(3, '0')}${zone}`;
}
