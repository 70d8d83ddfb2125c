import type { MediaKind } from '../media/kind.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** The longest side of a thumbnail, in pixels. What is smaller stays as it is. */
const THUMBNAIL_PIXELS = 320;

/** One way to make a file of a media. */
export interface Recipe {
  /** Of the file that is made. */
  readonly name: string;
  readonly contentType: string;
  /** For media of these kinds; says what the recipe is for, and binds nobody. */
  readonly kinds: readonly MediaKind[];
  /** Where set, the bytes go through this decoder before ffmpeg, which can't read them. */
  readonly decoder?: 'silk-wasm';
  /** Arguments of ffmpeg between input and output: which stream, what is done to it, and the container. */
  readonly output: readonly string[];
  /** A larger media is not begun. */
  readonly maxInputBytes: number;
  /** What reaches this is thrown away. */
  readonly maxOutputBytes: number;
}

/**
 * To 24 kHz, as the lowest rates of MP3 (for the 8 kHz of AMR) are not of the standard and not every player knows them.
 * The bitrate varies: what holds no high tones takes few bits all the same.
 */
const TO_MP3 = [
  ...['-map', '0:a:0', '-vn', '-sn', '-dn', '-ac', '1', '-ar', '24000'],
  ...['-c:a', 'libmp3lame', '-q:a', '5', '-flags:a', '+bitexact', '-id3v2_version', '0', '-f', 'mp3'],
];

const SHRINK = `min(1,${THUMBNAIL_PIXELS}/max(iw*sar,ih))`;

/** Pixels become square and no side 0, however thin the picture. */
const SCALED = `scale=w='max(1,round(iw*sar*${SHRINK}))':h='max(1,round(ih*${SHRINK}))':flags=area+full_chroma_inp+full_chroma_int+accurate_rnd,setsar=1`;

/** JPEG has no transparency. (White by lutrgb: drawbox crashes ffmpeg 5.1.9 of Debian 12.) */
const ON_WHITE =
  'format=rgba,split[over][under];[under]lutrgb=r=255:g=255:b=255:a=255[white];[white][over]overlay=format=rgb';

/**
 * Colours of all pixels (4:4:4). With those of every second one, as is more usual, ffmpeg 5.1.9 takes bytes that it never
 * set for the colours of very thin pictures.
 */
const toJpeg = (map: string, filters: readonly string[]): string[] => [
  ...['-map', map, '-an', '-sn', '-dn', '-vf', filters.join(','), '-frames:v', '1'],
  ...['-c:v', 'mjpeg', '-q:v', '5', '-pix_fmt', 'yuvj444p', '-flags:v', '+bitexact', '-f', 'mjpeg'],
];

const THUMBNAIL = { name: 'thumbnail.jpg', contentType: 'image/jpeg', maxOutputBytes: 512 * KIB } as const;
const VOICE = { name: 'voice.mp3', contentType: 'audio/mpeg', kinds: ['voice'], maxOutputBytes: 8 * MIB } as const;

/**
 * How files are made, by a name that is kept with each of them. The number is a version: whatever changes the bytes that
 * come out, an argument or a limit, needs the next one, so that it can be told which files were made before.
 */
export const RECIPES = {
  /** 8 MiB of AMR are an hour and a half; WeChat records one minute. */
  'voice-mp3/1': { ...VOICE, output: TO_MP3, maxInputBytes: 8 * MIB },
  'silk-mp3/1': { ...VOICE, decoder: 'silk-wasm', output: TO_MP3, maxInputBytes: 4 * MIB },
  'image-thumbnail/1': {
    ...THUMBNAIL,
    kinds: ['image', 'thumb'],
    output: toJpeg('0:v:0', [SCALED, ON_WHITE]),
    maxInputBytes: 64 * MIB,
  },
  /** The frame that is most like the others of the first 25: the very first one is often black. */
  'video-thumbnail/1': {
    ...THUMBNAIL,
    kinds: ['video'],
    output: toJpeg('0:V:0', [SCALED, 'thumbnail=25', ON_WHITE]),
    maxInputBytes: 2048 * MIB,
  },
} as const satisfies Record<`${string}/${number}`, Recipe>;

export type RecipeName = keyof typeof RECIPES;

/** How the bytes of a media type are read, and what is made of them. */
export interface Source {
  readonly recipes: readonly RecipeName[];
  /** ffmpeg's name of the container. It tries no other, whatever the bytes look like. */
  readonly demuxer: string;
  /** ffmpeg's names of the decoders that may see the bytes. */
  readonly decoders: readonly string[];
  /** Further arguments of ffmpeg before the input. */
  readonly input?: readonly string[];
}

/** The most pixels that a picture may have: the largest that telephones take have 48 million. */
const MAX_PIXELS = 50_000_000;

/** `enable_drefs`: no track of another file, which is the default as well. */
const MOVIE = {
  recipes: ['video-thumbnail/1'],
  demuxer: 'mov',
  decoders: ['h264', 'hevc', 'mpeg4', 'h263', 'vp9', 'libdav1d', 'av1', 'mjpeg'],
  input: ['-max_pixels', String(MAX_PIXELS), '-enable_drefs', '0'],
} as const satisfies Source;

const picture = (demuxer: string, decoder: string): Source => ({
  recipes: ['image-thumbnail/1'],
  demuxer,
  decoders: [decoder],
  input: ['-max_pixels', String(MAX_PIXELS)],
});

/**
 * What is made of which type, by what `sniffType` found in the bytes: what WeChat says of them is not to be trusted. Voice
 * in plain Speex has no magic, so no row; nor has what can be listened to as it is.
 *
 * @see https://ffmpeg.org/ffmpeg-formats.html#Demuxers
 */
export const SOURCES = {
  'audio/amr': { recipes: ['voice-mp3/1'], demuxer: 'amr', decoders: ['amrnb'] },
  'audio/amr-wb': { recipes: ['voice-mp3/1'], demuxer: 'amr', decoders: ['amrwb'] },
  /** As `silk-wasm` hands it on. */
  'audio/silk': {
    recipes: ['silk-mp3/1'],
    demuxer: 's16le',
    decoders: ['pcm_s16le'],
    input: ['-ar', '24000', '-ac', '1'],
  },
  'image/jpeg': picture('jpeg_pipe', 'mjpeg'),
  'image/png': picture('png_pipe', 'png'),
  /** Its first picture is an ordinary PNG. */
  'image/apng': picture('png_pipe', 'png'),
  'image/gif': picture('gif', 'gif'),
  'image/webp': picture('webp_pipe', 'webp'),
  'image/bmp': picture('bmp_pipe', 'bmp'),
  'video/mp4': MOVIE,
  'video/x-m4v': MOVIE,
  'video/quicktime': MOVIE,
  'video/3gpp': MOVIE,
  'video/3gpp2': MOVIE,
} as const satisfies Record<string, Source>;

/** The rate that `silk-wasm` is asked for, as the row of `audio/silk` tells ffmpeg. In Hz. */
export const SILK_SAMPLE_RATE = 24_000;

/** Returns how media of a type are read, or `undefined` when nothing is made of them. */
export function sourceOfType(mediaType: string | undefined): Source | undefined {
  return mediaType !== undefined && Object.hasOwn(SOURCES, mediaType)
    ? SOURCES[mediaType as keyof typeof SOURCES]
    : undefined;
}
