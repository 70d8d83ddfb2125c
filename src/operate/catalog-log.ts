import { partitionOfKey } from '../catalog/catalog-keys.ts';
import type { CatalogEvent } from '../catalog/catalog-turn.ts';
import type { Logger } from '../log.ts';

/** Writes what the catalog process does to the log. */
export function logCatalogEvent(log: Logger, event: CatalogEvent): void {
  switch (event.type) {
    case 'flushed': {
      const { rows, files, entries, ms, isRepeated } = event;
      log.info({ rows, files, entries, ms, isRepeated }, 'flushed');
      return;
    }
    case 'unreadable':
      log.error({ ids: event.ids.slice(0, 20), count: event.ids.length }, 'the outbox holds what is none of ours');
      return;
    case 'finished':
      log.warn({ replacements: event.replacements }, 'ended what a catalog process that died had begun');
      return;
    case 'spoilt':
      for (const key of event.keys) log.error({ key }, spoiltText(key));
      return;
    case 'compacted': {
      const { partition, sources, targets, rows } = event;
      log.info({ ...partition, sources, targets, rows }, 'merged small files');
      return;
    }
    case 'closed': {
      const { dt, objects, added, foreign, letters } = event;
      log.info({ dt, objects, added, foreign, letters }, 'day closed');
      if (added + letters > 0)
        log.warn({ dt, added, letters }, 'rows that the outbox did not bring were made from what lies in the bucket');
      return;
    }
    default:
      event satisfies never;
  }
}

function spoiltText(key: string): string {
  const { table, dt = '' } = partitionOfKey(key) ?? {};
  const remedy =
    table === 'accepted'
      ? 'bring back a version of it, or remove it'
      : `weixin-media catalog rebuild --since ${dt} --until ${dt}`;
  const waits = table === 'media' ? ': the day is not sealed until it is made anew' : '';
  return `a file of the catalog can't be read${waits}: ${remedy}`;
}
