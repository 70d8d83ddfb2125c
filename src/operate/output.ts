import { type Options, Presets, SingleBar } from 'cli-progress';
import Table from 'cli-table3';
import { orAbort } from '../abort.ts';

/** Where a command writes: results to stdout, one JSON object a line with `--json`; everything else to stderr. */
export interface Output {
  readonly json: boolean;
  /** Writes one result: as a line of JSON, or as text for people. */
  result(value: object, text: () => string): void;
  /** Resolves once the results are on their way: for many of them, so that they don't pile up before a slow reader. */
  taken(signal: AbortSignal): Promise<void>;
  /** Writes a remark for people to stderr. */
  note(text: string): void;
  /** Shows progress on stderr when it is a terminal. */
  progress(label: string, total: number): Progress;
}

export interface Progress extends Disposable {
  advance(by: number): void;
  /** Sets what is to be done in all, where it was not known. */
  total(count: number): void;
  stop(): void;
}

export interface OutputStreams {
  readonly stdout: { write(text: string, written?: () => void): unknown };
  readonly stderr: NodeJS.WriteStream;
}

/** What a terminal may obey. Texts of peers and of foreign jobs must not; JSON has its own escapes. */
const CONTROL = /[^\P{Cc}\n\t]/gu;

export function createOutput(json: boolean, { stdout, stderr }: OutputStreams): Output {
  return {
    json,
    result: (value, text) =>
      void stdout.write(json ? `${JSON.stringify(value)}\n` : `${text().replaceAll(CONTROL, '\ufffd')}\n`),
    taken: (signal) => orAbort(new Promise((resolve) => void stdout.write('', () => resolve())), signal),
    note: (text) => void stderr.write(`${text.replaceAll(CONTROL, '\ufffd')}\n`),
    progress: (label, total) => (stderr.isTTY ? terminalProgress(label, total, stderr) : SILENT),
  };
}

function terminalProgress(label: string, total: number, stream: NodeJS.WriteStream): Progress {
  const options: Options = {
    format: `${label} {bar} {value}/{total} | {eta_formatted} left`,
    stream,
    hideCursor: true,
    clearOnComplete: true,
  };
  const bar = new SingleBar(options, Presets.shades_classic);
  bar.start(total, 0);
  const stop = (): void => bar.stop();
  return { advance: (by) => bar.increment(by), total: (count) => bar.setTotal(count), stop, [Symbol.dispose]: stop };
}

const SILENT: Progress = {
  advance: () => undefined,
  total: () => undefined,
  stop: () => undefined,
  [Symbol.dispose]: () => undefined,
};

/** Lays rows out in columns, without a frame; columns of numbers to the right. */
export function table(head: readonly string[], rows: readonly (readonly (string | number)[])[]): string {
  const none = '';
  const chars = { top: none, 'top-mid': none, 'top-left': none, 'top-right': none, bottom: none, 'bottom-mid': none };
  const more = { 'bottom-left': none, 'bottom-right': none, left: none, 'left-mid': none, mid: none, 'mid-mid': none };
  const last = { right: none, 'right-mid': none, middle: '  ' };
  const isNumeric = (column: number): boolean => rows.every((row) => NUMERIC.test(String(row[column] ?? '-')));
  const layout = new Table({
    head: [...head],
    colAligns: head.map((_, column) => (isNumeric(column) ? 'right' : 'left')),
    chars: { ...chars, ...more, ...last },
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  layout.push(...rows.map((row) => [...row]));
  return layout
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** A number, with its unit where it has one; or nothing in the place of a number. */
const NUMERIC = /^(-|-?\d+(\.\d+)?( [A-Za-z]+)?)$/;

/** Text for people is kept this wide where it can be broken: a terminal of the usual width, and a blank. */
const TEXT_WIDTH = 79;

/** A label and its lines. Those that are `undefined` are left out, and the label with them when none is left. */
export type Field = readonly [label: string, ...lines: readonly (string | undefined)[]];

/** Lays fields out under each other: labels on the left, their lines on the right, long lines broken between words. */
export function fields(all: readonly Field[]): string {
  const shown = all
    .map(([label, ...lines]) => ({ label, lines: lines.filter((line) => line !== undefined) }))
    .filter(({ lines }) => lines.length > 0);
  const indent = Math.max(0, ...shown.map(({ label }) => label.length)) + 2;
  return shown
    .flatMap(({ label, lines }) =>
      lines
        .flatMap((line) => wrapped(line, TEXT_WIDTH - indent))
        .map((line, index) => (index === 0 ? label : '').padEnd(indent) + line),
    )
    .join('\n');
}

/** Breaks a line between words. What has no blank, such as a key, is left whole: it is there to be copied. */
export function wrapped(line: string, width = TEXT_WIDTH): string[] {
  const lines: string[] = [];
  let current = '';
  for (const word of line.split(' ')) {
    const longer = current === '' ? word : `${current} ${word}`;
    if (current !== '' && longer.length > width) {
      lines.push(current);
      current = word;
    } else current = longer;
  }
  return [...lines, current];
}

/** A length of time for people: `3 d 2 h`, `12 min`, `40 s`. */
export function duration(ms: number): string {
  const seconds = Math.round(Math.abs(ms) / 1000);
  const sign = ms < 0 ? '-' : '';
  const parts: [number, string][] = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3_600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first === -1) return '0 s';
  const shown = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return sign + shown.map(([count, unit]) => `${count} ${unit}`).join(' ');
}

/** A count of bytes for people. */
export function byteCount(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  const power = Math.min(4, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1024 ** power).toFixed(1)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][power]}`;
}
