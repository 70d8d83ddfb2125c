import { mediaIdSchema } from '../media/media-job.ts';
import { pseudonymOf } from '../media/open-id.ts';
import type { Secret } from '../secret.ts';

/** A text that is shorter says nothing where it stands among others. WeChat's ids have 28 characters and more. */
const MIN_TELLING = 8;
const WORDS = /[A-Za-z0-9_-]+/g;

/** Whose traces are looked for, in one app: those of a person, or of some media. Grows while they are looked for. */
export interface Wanted {
  readonly appId: string;
  /** The person's openId in each form that may have been kept; none when media are looked for by their ids. */
  readonly openIds: ReadonlySet<string>;
  readonly mediaIds: Set<string>;
  /** Keys of letters of what was no MediaJob, and what those go by in the list of dead letters. */
  readonly letterKeys: Set<string>;
  readonly letterIds: Set<string>;
  /** True for one of the media, or anything made of it, by its key in the bucket. */
  isKey(key: string): boolean;
  /** True for a text that names the person or one of the media, as `grep` would find it. */
  isIn(text: string): boolean;
}

/** @param openIdKey of the pseudonyms, where there is one. */
export function createWanted(appId: string, openId: string | undefined, openIdKey?: Secret): Wanted {
  const openIds = new Set<string>();
  const words = new Set<string>();
  const phrases: string[] = [];
  if (openId !== undefined) {
    openIds.add(openId);
    // As metadata have it.
    const texts = [openId, Buffer.from(openId).toString('base64url')];
    if (openIdKey !== undefined) {
      const pseudonym = pseudonymOf(appId, openId, openIdKey);
      openIds.add(pseudonym);
      texts.push(pseudonym.slice(pseudonym.indexOf(':') + 1));
    }
    for (const text of texts) {
      if (text.length < MIN_TELLING) continue;
      if (/^[A-Za-z0-9_-]+$/.test(text)) words.add(text);
      else phrases.push(text, JSON.stringify(text).slice(1, -1));
    }
  }
  const mediaIds = new Set<string>();
  const letterKeys = new Set<string>();
  const prefix = `${appId}-`;
  const isWord = (word: string): boolean =>
    (word.length >= MIN_TELLING && (words.has(word) || mediaIds.has(word))) ||
    (word.startsWith(prefix) && mediaIds.has(word.slice(prefix.length)));
  return {
    appId,
    openIds,
    mediaIds,
    letterKeys,
    letterIds: new Set(),
    isKey: (key) => letterKeys.has(key) || (key.includes(`/app=${appId}/`) && mediaIds.has(mediaIdOf(key) ?? '')),
    isIn: (text) => phrases.some((phrase) => text.includes(phrase)) || text.match(WORDS)?.some(isWord) === true,
  };
}

/** The media that a key names: the first segment behind the partitions, up to its first dot. */
export function mediaIdOf(key: string): string | undefined {
  const segment = key
    .split('/')
    .findLast((_, index, all) => all[index - 1]?.includes('=') === true && !all[index]?.includes('='));
  const [name = ''] = (segment ?? '').split('.');
  return mediaIdSchema.safeParse(name).success ? name : undefined;
}

/** True for what a producer has said of a media: is it this person's? */
export function isTheirs(
  { openIds }: Pick<Wanted, 'openIds'>,
  { openId, labels }: { readonly openId?: unknown; readonly labels?: unknown },
): boolean {
  if (openIds.size === 0) return false;
  if (typeof openId === 'string' && openIds.has(openId)) return true;
  if (typeof labels !== 'object' || labels === null) return false;
  return Object.values(labels).some((label) => typeof label === 'string' && openIds.has(label));
}
