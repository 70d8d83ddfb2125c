import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startHelper } from '../helper-process.ts';
import type { ListerAnswer, ListerAsk } from './lister.ts';
import type { StoreAnswer, StoreAsk } from './store.ts';

/** Lists a bucket of so many objects of one app and day, in a process that does nothing else, and tells what it took. */
export async function listingMemory(objects: number, note: (text: string) => void): Promise<ListerAnswer> {
  await using parts = new AsyncDisposableStack();
  const directory = await mkdtemp(join(tmpdir(), 'weixin-media-bench-'));
  parts.defer(() => rm(directory, { recursive: true, force: true, maxRetries: 5 }));
  const store = parts.use(startHelper<StoreAsk, StoreAnswer>(new URL('./store.ts', import.meta.url), [directory]));
  const sample = { rows: objects, apps: 1, days: 1, since: Date.parse('2026-06-15') };
  note(`a bucket of ${objects.toLocaleString('en')} objects`);
  const { url: storeUrl } = await store.ask({ type: 'media', sample });
  // A busy machine would let garbage lie for longer.
  const smallHeap = ['--max-old-space-size=80', '--max-semi-space-size=4'];
  const url = new URL('./lister.ts', import.meta.url);
  const lister = parts.use(startHelper<ListerAsk, ListerAnswer>(url, [], smallHeap));
  note('listing it');
  const answer = await lister.ask({ url: storeUrl, directory });
  if (answer.objects !== objects) throw new Error(`${answer.objects} objects listed`);
  return answer;
}
