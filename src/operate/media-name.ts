import { appIdSchema, MEDIA_VARIANTS, type MediaVariant, mediaIdSchema } from '../media/media-job.ts';
import { CommandError, EXIT } from './command-error.ts';

/** A media as it goes by in the queue and in keys. A variant is another media under the same media_id. */
export interface MediaName {
  readonly appId: string;
  readonly mediaId: string;
  readonly variant?: MediaVariant;
}

/** The app of a letter that came out of the inbox and names none. */
export const NO_APP = 'unknown';

export function isLetterAppId(text: string): boolean {
  return text === NO_APP || appIdSchema.safeParse(text).success;
}

/** @throws CommandError when it is no appId. */
export function checkAppId(appId: string): void {
  if (!appIdSchema.safeParse(appId).success)
    throw new CommandError(`${appId} is no appId: "wx" and 16 hexadecimal digits`, EXIT.usage);
}

/**
 * Parses what an operator calls a media: a media_id, which means each of its variants too, or one with a variant behind
 * it, `<media_id>.hd-voice`, which means that one. Returns none when it is neither.
 */
export function mediaNames(appId: string, text: string): MediaName[] {
  if (mediaIdSchema.safeParse(text).success)
    return [{ appId, mediaId: text }, ...MEDIA_VARIANTS.map((variant) => ({ appId, mediaId: text, variant }))];
  const named = MEDIA_VARIANTS.find((variant) => text.endsWith(`.${variant}`));
  const mediaId = text.slice(0, -1 - (named ?? '').length);
  return named !== undefined && mediaIdSchema.safeParse(mediaId).success ? [{ appId, mediaId, variant: named }] : [];
}

export function wrongMediaId(text: string): CommandError {
  return new CommandError(`${text} is no media_id: 1 to 256 characters of A-Z, a-z, 0-9, "_" and "-"`, EXIT.usage);
}

/** The variant of what goes by `jobId` in the queue. */
export function variantOf(jobId: string, { appId, mediaId }: MediaName): MediaVariant | undefined {
  return MEDIA_VARIANTS.find((variant) => jobId === `${appId}-${mediaId}.${variant}`);
}

/** The media of a letter, with its variant where it is one. */
export function nameOf({ jobId, appId, mediaId }: { readonly jobId: string } & MediaName): MediaName {
  const variant = variantOf(jobId, { appId, mediaId });
  return { appId, mediaId, ...(variant === undefined ? {} : { variant }) };
}
