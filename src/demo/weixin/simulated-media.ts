import type { SampleBytes, SampleFormat } from './sample-media.ts';

export interface SimulatedMedia {
  readonly appId: string;
  readonly mediaId: string;
  readonly format: SampleFormat;
  readonly bytes: SampleBytes;
  /** By the simulator's clock. */
  readonly sentAt: number;
  /** How a video comes: itself, or as an address. */
  readonly deliver: 'bytes' | 'video-url';
  /** The file name in the Content-disposition. */
  readonly fileName: string;
}
