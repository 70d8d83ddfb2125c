import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type SampleFormat, sampleBytes } from '../../../src/demo/weixin/sample-media.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Bytes that the origin has, under each media id and each file name that begins with `<name>-`. */
export interface Sample {
  readonly name: string;
  readonly file: string;
  readonly format: SampleFormat;
  readonly sizeBytes: number;
}

/** What one run is made of: its samples in turn. */
export interface Workload {
  readonly name: string;
  readonly samples: readonly Sample[];
  /** Objects of one round, by default. */
  readonly count: number;
}

function sample(format: SampleFormat, sizeBytes: number): Sample {
  const name = `${format}${sizeBytes}`;
  return { name, file: `${name}.${format === 'amr' ? 'amr' : 'jpg'}`, format, sizeBytes };
}

/** As users send: four in five an image of 50 to 500 KiB, the fifth a voice of 5 or 30 s. */
const MIX: readonly Sample[] = [
  ...[50, 115, 180, 245].map((kib) => sample('jpeg', kib * KIB)),
  sample('amr', 8 * KIB),
  ...[310, 375, 440, 500].map((kib) => sample('jpeg', kib * KIB)),
  sample('amr', 48 * KIB),
];

/** What most else is compared by. */
export const SMALL: Workload = { name: '64KiB', samples: [sample('jpeg', 64 * KIB)], count: 2_000 };

export const WORKLOADS: readonly Workload[] = [
  SMALL,
  { name: '1MiB', samples: [sample('jpeg', MIB)], count: 500 },
  { name: '10MiB', samples: [sample('jpeg', 10 * MIB)], count: 128 },
  { name: '100MiB', samples: [sample('jpeg', 100 * MIB)], count: 24 },
  { name: 'mix', samples: MIX, count: 1_500 },
];

/** For a look at one picture at a time. */
export const PICTURE = sample('jpeg', 200 * KIB);

export const SAMPLE_SIZES: readonly Sample[] = [...WORKLOADS.flatMap(({ samples }) => samples), PICTURE];

/** Writes the files of all samples into a folder. */
export async function sampleFolder(folder: string): Promise<string> {
  await mkdir(folder, { recursive: true });
  for (const { file, format, sizeBytes } of SAMPLE_SIZES) {
    await writeFile(join(folder, file), sampleBytes(format, sizeBytes, file).chunks());
  }
  return folder;
}
