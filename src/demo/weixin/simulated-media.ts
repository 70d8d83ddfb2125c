import { type SampleBytes, type SampleFormat, sampleBytes } from './sample-media.ts';

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

/**
 * What /cgi-bin/media/get/jssdk serves under the id of a voice: another rendition, with bytes of its own. There is none of
 * anything else.
 *
 * @see https://developers.weixin.qq.com/doc/service/api/material/temporary/api_gethdvoice
 */
export function hdVoiceOf(media: SimulatedMedia | undefined): SimulatedMedia | undefined {
  if (media === undefined || media.format === 'speex') return media;
  if (media.format !== 'amr' && media.format !== 'silk') return undefined;
  const { mediaId, bytes } = media;
  return {
    ...media,
    format: 'speex',
    bytes: sampleBytes('speex', bytes.sizeBytes * 2, `${mediaId} in HD`),
    fileName: `${mediaId}.speex`,
  };
}
