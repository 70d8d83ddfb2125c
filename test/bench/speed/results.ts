import type { ContenderName } from './contender.ts';

/** One run of one contender. Times in milliseconds but for `seconds`. */
export interface Round {
  readonly contender: ContenderName;
  readonly round: number;
  readonly objects: number;
  readonly bytes: number;
  readonly seconds: number;
  /** CPU time of the contender's own process; of the others in the meantime. */
  readonly cpuMs: number;
  readonly redisMs: number;
  readonly originMs: number;
  readonly storeMs: number;
}

/** All rounds at one size and concurrency. */
export interface Cell {
  readonly size: string;
  readonly concurrency: number;
  readonly rounds: readonly Round[];
}

export interface Ratio {
  readonly name: string;
  readonly median: number;
  readonly least: number;
  readonly most: number;
  /** What it should be at least; absent where nothing was set. */
  readonly aim?: number;
}

type Measure = 'objects/s' | 'objects per CPU-second';

interface Aim {
  readonly against: ContenderName;
  readonly measure: Measure;
  /** By size, at 64 at a time. */
  readonly least: Readonly<Record<string, number>>;
}

const AIMS: readonly Aim[] = [
  { against: 'sdk-loop', measure: 'objects/s', least: { '64KiB': 1.8, '1MiB': 1.6 } },
  { against: 'floor', measure: 'objects/s', least: { '64KiB': 0.75, '1MiB': 0.9 } },
  { against: 'sdk-script', measure: 'objects/s', least: { '64KiB': 2, '1MiB': 2, mix: 2 } },
  { against: 'rclone', measure: 'objects/s', least: {} },
  { against: 'rclone', measure: 'objects per CPU-second', least: { '64KiB': 0.75 } },
];

const AIMED_AT = 64;

/** What `ours` does by what the others do, round by round. */
export function ratiosOf({ size, concurrency, rounds }: Cell): Ratio[] {
  return AIMS.flatMap(({ against, measure, least }) => {
    const ratios = rounds
      .filter(({ contender }) => contender === 'ours')
      .flatMap((ours) => {
        const theirs = rounds.find((one) => one.contender === against && one.round === ours.round);
        return theirs === undefined ? [] : [rateOf(ours, measure) / rateOf(theirs, measure)];
      });
    if (ratios.length === 0) return [];
    const aim = concurrency === AIMED_AT ? least[size] : undefined;
    return [
      {
        name: `ours / ${against}, ${measure}`,
        median: median(ratios),
        least: Math.min(...ratios),
        most: Math.max(...ratios),
        ...(aim === undefined ? {} : { aim }),
      },
    ];
  });
}

function rateOf({ objects, seconds, cpuMs }: Round, measure: Measure): number {
  return objects / (measure === 'objects/s' ? seconds : cpuMs / 1_000);
}

/** The middle one; of an even number the mean of both. */
export function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((one, other) => one - other);
  const middle = sorted.length / 2;
  return ((sorted[Math.ceil(middle) - 1] ?? 0) + (sorted[Math.floor(middle)] ?? 0)) / 2;
}
