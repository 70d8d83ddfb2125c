/** Extensions for declared types whose bytes tell nothing. */
const EXTENSIONS: Readonly<Record<string, string>> = {
  'image/jpeg': 'jpg',
  'image/png': 'png',
  'image/gif': 'gif',
  'image/webp': 'webp',
  'image/bmp': 'bmp',
  'audio/amr': 'amr',
  'audio/mpeg': 'mp3',
  'audio/mp3': 'mp3',
  'audio/silk': 'silk',
  'audio/speex': 'speex',
  'voice/speex': 'speex',
  'voice/amr': 'amr',
  'video/mp4': 'mp4',
  'video/quicktime': 'mov',
};

/** Returns the type of a `Content-Type` header: lower case, without parameters; `undefined` when it is not one. */
export function mimeOf(header: string | undefined): string | undefined {
  const type = header?.split(';', 1)[0]?.trim().toLowerCase();
  return type !== undefined && /^[a-z0-9!#$&^_.+-]{1,64}\/[a-z0-9!#$&^_.+-]{1,64}$/.test(type) ? type : undefined;
}

/** True for types that only media have. */
export function isMediaType(mime: string | undefined): boolean {
  return mime !== undefined && /^(image|audio|video|voice)\//.test(mime);
}

/** True for types under which WeChat sends JSON and gateways send pages. */
export function isTextType(mime: string | undefined): boolean {
  return mime !== undefined && (mime.startsWith('text/') || mime === 'application/json' || mime === 'application/xml');
}

export function extensionOfType(mime: string | undefined): string | undefined {
  return mime === undefined ? undefined : EXTENSIONS[mime];
}

/**
 * Returns the extension of the file name in a `Content-Disposition` header, lower case; `undefined` when there is none
 * that is letters and digits. The name itself is never used: it may be of any encoding.
 */
export function extensionOfDisposition(header: string | undefined): string | undefined {
  const name = /filename\*?\s*=\s*("?)([^;]*)\1/i.exec(header ?? '')?.[2];
  return /\.([A-Za-z0-9]{1,8})"?\s*$/.exec(name ?? '')?.[1]?.toLowerCase();
}
