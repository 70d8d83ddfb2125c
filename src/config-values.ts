/**
 * Parsers of the values that stand in the environment. Each returns `undefined` for a text that is not of its form.
 *
 * @module
 */

export const MIB = 1024 * 1024;

/** A path, and not the content of the file: that holds secrets, and a mistake would repeat it. */
export function filePath(text: string): string | undefined {
  return /[{}"\n]/.test(text) ? undefined : nonEmpty(text);
}

export function protocolOf(text: string): string {
  return URL.canParse(text) ? new URL(text).protocol : '';
}

export function nonEmpty(text: string): string | undefined {
  return text.trim() === '' ? undefined : text;
}

export function bool(text: string): boolean | undefined {
  return text === 'true' ? true : text === 'false' ? false : undefined;
}

export function oneOf<const T extends readonly string[]>(words: T): (text: string) => T[number] | undefined {
  return (text) => words.find((word) => word === text);
}

export function number(text: string): number | undefined {
  return /^\d+(\.\d+)?$/.test(text) ? Number(text) : undefined;
}

export function integer(text: string): number | undefined {
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined;
}

export function within(value: number | undefined, least: number, most: number): number | undefined {
  return value !== undefined && value >= least && value <= most ? value : undefined;
}

export function atLeast(value: number | undefined, least: number): number | undefined {
  return within(value, least, Number.MAX_SAFE_INTEGER);
}

const BYTE_UNITS: Readonly<Record<string, number>> = { '': 1, B: 1, KiB: 1024, MiB: MIB, GiB: 1024 * MIB };

/** Parses `8MiB`, `512KiB`, `1GiB` or a plain count of bytes. */
export function byteSize(text: string): number | undefined {
  const [, count, unit] = /^(\d{1,15})\s?(|B|KiB|MiB|GiB)$/.exec(text) ?? [];
  const factor = unit === undefined ? undefined : BYTE_UNITS[unit];
  return count === undefined || factor === undefined ? undefined : Number(count) * factor;
}

/** Splits a comma-separated list; `undefined` when it is empty or one item fails. */
export function list<T>(text: string, parse: (item: string) => T | undefined): T[] | undefined {
  const items = text.split(',').map((item) => parse(item.trim()));
  const parsed = items.filter((item) => item !== undefined);
  return parsed.length > 0 && parsed.length === items.length ? parsed : undefined;
}

export function hostList(text: string): { host: string; port: number }[] | undefined {
  return list(text, (item) => {
    const [, host, port] = /^([^\s:/@]+|\[[0-9a-fA-F:]+\]):(\d{1,5})$/.exec(item) ?? [];
    const known = within(Number(port), 1, 65_535);
    return host === undefined || known === undefined ? undefined : { host: host.replace(/^\[|\]$/g, ''), port: known };
  });
}

export function urlList(text: string): URL[] | undefined {
  return list(text, (item) => (/^https?:$/.test(protocolOf(item)) ? new URL(item) : undefined));
}

export function allowList(text: string): string[] | undefined {
  return list(text, (item) =>
    /^([A-Za-z0-9.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?$/.test(item) ? item.toLowerCase() : undefined,
  );
}
