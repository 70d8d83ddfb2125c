import { HOUR } from '../time.ts';
import type { MediaJob } from './media-job.ts';

/** WeChat keeps temporary media three days, counted from the moment the user sent it. */
export const DEFAULT_MEDIA_TTL_MS = 72 * HOUR;

/** Returns the Unix time in milliseconds after which WeChat no longer has the media. */
export function deadlineOf(job: Pick<MediaJob, 'receivedAt'>, mediaTtlMs: number): number {
  return Date.parse(job.receivedAt) + mediaTtlMs;
}
