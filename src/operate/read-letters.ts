import { type DeadLetter, invalidJobId } from '../dead-letter/dead-letter.ts';
import type { DeadLetterIndex } from '../dead-letter/dead-letter-index.ts';
import { type Result, succeed } from '../failure.ts';
import { mediaJobId } from '../media/media-job.ts';
import { findDeadLetterKeys } from './find-dead-letter.ts';
import { mediaNames } from './media-name.ts';
import type { OpenStore } from './open-queue.ts';

export interface LetterDesk extends Pick<OpenStore, 'store' | 'deadLetters'> {
  readonly deadLetterIndex: DeadLetterIndex;
}

export interface FoundLetter {
  readonly key: string;
  readonly letter: DeadLetter;
}

/**
 * Reads the letters of a media, of each of its variants, open ones and others. Returns none where there is none.
 *
 * What was no MediaJob goes by the id that it had in the queue, whatever that is; its app may be `unknown`.
 *
 * @throws FailureError when the bucket can't be looked through.
 */
export async function readLetters(
  { store, deadLetters, deadLetterIndex }: LetterDesk,
  appId: string,
  text: string,
  signal: AbortSignal,
): Promise<Result<FoundLetter[]>> {
  const names = mediaNames(appId, text);
  const jobIds = [...names.map(mediaJobId), invalidJobId(text)];
  const listed = await Promise.all(jobIds.map((jobId) => deadLetterIndex.get(jobId)));
  let keys = listed.flatMap((summary) => (summary?.appId === appId ? summary.key : []));
  if (keys.length === 0) keys = await findDeadLetterKeys(store, names, signal);
  const found: FoundLetter[] = [];
  for (const key of keys) {
    const letter = await deadLetters.read(key, signal);
    if (!letter.ok) return letter;
    if (letter.value !== undefined) found.push({ key, letter: letter.value });
  }
  return succeed(found);
}
