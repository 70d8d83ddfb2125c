import type { FaultAction } from '../../../src/demo/weixin/fault.ts';
import type { SampleFormat } from '../../../src/demo/weixin/sample-media.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** How many media each scenario has; with none it is left out. */
export interface Sizes {
  readonly images: number;
  readonly videos: number;
}

export const FULL: Sizes = { images: 256, videos: 64 };

export interface Scenario {
  readonly name: string;
  /** WORKER_CONCURRENCY; at least as many media as that are there from the start. */
  readonly concurrency: number;
  /** WORKER_MEMORY_BUDGET. */
  readonly budgetBytes: number;
  readonly media: { readonly count: number; readonly format: SampleFormat; readonly sizeBytes: number };
  /** It ends when so many of them are archived; absent: all. */
  readonly archive?: number;
  /** How WeChat sends them; absent: whole, and as fast as they are read. */
  readonly sent?: FaultAction;
  /** How fast the store reads each request; absent: as fast as it comes. */
  readonly storeBytesPerSecond?: number;
}

/** Slow enough that all are under way at once: the last of them begins before the first has ended. */
const DRIP: FaultAction = { type: 'drip', chunkBytes: 32 * KIB, everyMs: 200 };

/** What is most at once: many images, and videos whose sum is twelve times the default budget. */
export function scenarios({ images, videos }: Sizes): Scenario[] {
  const budgetBytes = 256 * MIB;
  const image = { count: images, format: 'jpeg', sizeBytes: 500 * KIB } as const;
  const video = { count: videos, format: 'mp4', sizeBytes: 50 * MIB } as const;
  const manyImages = { concurrency: images, media: image, sent: DRIP };
  const manyVideos = { concurrency: videos, media: video };
  const named = (what: { readonly count: number }, text: string): string => `${what.count} ${text}`;
  const all: Scenario[] = [
    { name: named(image, 'images of 500 KiB'), budgetBytes, ...manyImages },
    { name: named(image, 'images of 500 KiB'), budgetBytes: 64 * MIB, ...manyImages },
    { name: named(video, 'videos of 50 MiB'), budgetBytes, ...manyVideos },
    { name: named(video, 'videos of 50 MiB'), budgetBytes: 64 * MIB, ...manyVideos },
    { name: named(video, 'videos of 50 MiB'), budgetBytes: 512 * MIB, ...manyVideos },
    {
      name: named(video, 'videos without Content-Length'),
      budgetBytes,
      ...manyVideos,
      sent: { type: 'no-length', framing: 'chunked' },
    },
    {
      name: named(video, 'videos, a slow store'),
      budgetBytes,
      ...manyVideos,
      storeBytesPerSecond: 8 * MIB,
    },
  ];
  return [
    { name: 'nothing to do', concurrency: 64, budgetBytes, media: { ...image, count: 0 } },
    ...all.filter(({ media }) => media.count > 0),
  ];
}
