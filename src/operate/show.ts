import type { Config } from '../config.ts';
import { FAILURES } from '../failure.ts';
import { MINUTE } from '../time.ts';
import { CommandError, EXIT } from './command-error.ts';
import { knownMedia } from './known-media.ts';
import { checkAppId, mediaNames, wrongMediaId } from './media-name.ts';
import { openQueue, openStore } from './open-queue.ts';
import type { Output } from './output.ts';

const BUCKET_TIMEOUT_MS = MINUTE;

/**
 * `show <appId> <mediaId>`: where a media is and what has happened to it, each of its variants for itself. Exit 1 when
 * nothing is known of it.
 */
export async function show(config: Config, appId: string, text: string, output: Output): Promise<number> {
  checkAppId(appId);
  const names = mediaNames(appId, text);
  if (names.length === 0) throw wrongMediaId(text);
  await using queue = await openQueue(config);
  using bucket = config.store === undefined ? undefined : openStore(config.store, queue);
  const desk = {
    queue,
    bucket,
    mediaTtlMs: config.media.ttlMs,
    now: Date.now(),
    bucketTimeoutMs: BUCKET_TIMEOUT_MS,
  };
  const known = await knownMedia(desk, names);
  if (known.length === 0 && bucket === undefined) {
    throw new CommandError(
      `nothing is known of ${appId} ${text} in the queue; with ARCHIVE_BUCKET set, the bucket is asked too`,
    );
  }
  if (known.length === 0) throw new CommandError(`nothing is known of ${appId} ${text}`);
  for (const [index, found] of known.entries()) {
    output.result(found.facts, () => (index === 0 ? found.text : `\n${found.text}`));
    if (found.trouble !== undefined) {
      const { code } = found.trouble;
      output.note(`the bucket can't be asked: ${code} (${FAILURES[code].hint})`);
    }
  }
  return EXIT.done;
}
