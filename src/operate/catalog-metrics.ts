import { Counter, Gauge, Registry } from 'prom-client';
import type { CatalogEvent } from '../catalog/catalog-turn.ts';
import { SECOND } from '../time.ts';

export interface CatalogMetrics {
  observe(event: CatalogEvent): void;
  observeOutbox(entries: number, oldestMs: number): void;
  observeFailure(): void;
  /** The text format of Prometheus. Asks nobody. */
  render(): Promise<{ readonly contentType: string; readonly body: string }>;
}

/** The numbers of one catalog process. */
export function createCatalogMetrics(redisUp: () => boolean): CatalogMetrics {
  const registry = new Registry();
  const registers = [registry];
  const rows = new Counter({ name: 'weixin_media_catalog_rows_total', help: 'Rows written to the bucket.', registers });
  const files = new Counter({
    name: 'weixin_media_catalog_files_total',
    help: 'Files written to the bucket.',
    registers,
  });
  const failures = new Counter({
    name: 'weixin_media_catalog_failures_total',
    help: 'Turns that failed and were tried again, and spoilt files that they met.',
    registers,
  });
  const unreadable = new Counter({
    name: 'weixin_media_catalog_unreadable_total',
    help: 'Entries of the outbox that nobody could read.',
    registers,
  });
  const made = new Counter({
    name: 'weixin_media_catalog_rows_made_total',
    help: 'Rows that the outbox did not bring and that were made from their objects when the day was closed.',
    registers,
  });
  const days = new Counter({ name: 'weixin_media_catalog_days_closed_total', help: 'Days closed.', registers });
  const outbox = new Gauge({
    name: 'weixin_media_outbox_entries',
    help: 'Entries that wait in the outbox.',
    registers,
  });
  const oldest = new Gauge({
    name: 'weixin_media_outbox_oldest_seconds',
    help: 'Age of the oldest entry of the outbox.',
    registers,
  });
  const up = new Gauge({ name: 'weixin_media_redis_up', help: '1 while Redis answers.', registers });

  return {
    observe: (event) => {
      switch (event.type) {
        case 'flushed':
          rows.inc(event.rows);
          files.inc(event.files);
          return;
        case 'unreadable':
          unreadable.inc(event.ids.length);
          return;
        case 'closed':
          made.inc(event.added + event.letters);
          days.inc();
          return;
        case 'spoilt':
          failures.inc(event.keys.length);
          return;
        case 'finished':
        case 'compacted':
          return;
        default:
          event satisfies never;
      }
    },
    observeOutbox: (entries, oldestMs) => {
      outbox.set(entries);
      oldest.set(oldestMs / SECOND);
    },
    observeFailure: () => failures.inc(),
    render: async () => {
      up.set(redisUp() ? 1 : 0);
      return { contentType: registry.contentType, body: await registry.metrics() };
    },
  };
}
