import { BodyBuffers } from '../../../src/archive/body-buffers.ts';
import { PARTS_HELD } from '../../../src/store/archive-store.ts';
import type { Scenario } from './scenarios.ts';

const KIB = 1024;

/** One cell: so many media of one size at once, within one budget. */
export interface Cell {
  /** WORKER_CONCURRENCY. */
  readonly concurrency: number;
  readonly sizeBytes: number;
  /** WORKER_MEMORY_BUDGET. */
  readonly budgetBytes: number;
}

/** The most media that a cell archives, and the most bytes, in budgets. */
const MOST_MEDIA = 1_024;
const MOST_BUDGETS = 4;
/** Each slot is given one media in so many milliseconds, times the slots: few enough a second for all to be busy. */
const MS_PER_MEDIA = 4;
/** What the simulator sends at a time. */
const CHUNK_BYTES = 64 * KIB;
/** ARCHIVE_PART_SIZE, by default. */
const PART_SIZE_BYTES = 8 * 1024 * KIB;

/**
 * A cell as a scenario. It ends when `archive` media are archived, the same number in each cell of one size: 4 budgets
 * full, or 1,024 media where those are fewer bytes. There are enough media for all slots to be busy up to then.
 *
 * @param spare media beside those that are archived: the highest concurrency, so that cells of one size share their media.
 */
export function scenarioOf({ concurrency, sizeBytes, budgetBytes }: Cell, spare: number): Scenario {
  const archive = Math.min(MOST_MEDIA, Math.ceil((MOST_BUDGETS * budgetBytes) / sizeBytes));
  // Where the budget has room for all of them, they would be done one after the other; else they wait for it anyway.
  const mustBeSlow = concurrency > 1 && concurrency * reservedFor(sizeBytes) <= budgetBytes;
  const everyMs = Math.ceil((MS_PER_MEDIA * concurrency) / Math.ceil(sizeBytes / CHUNK_BYTES));
  return {
    name: `${concurrency} at once of ${sizeBytes / KIB} KiB`,
    concurrency,
    budgetBytes,
    media: { count: archive + spare, format: 'mp4', sizeBytes },
    archive,
    ...(mustBeSlow ? { sent: { type: 'drip', chunkBytes: CHUNK_BYTES, everyMs } as const } : {}),
  };
}

/** What a worker reserves of its budget for a media of this size. */
function reservedFor(sizeBytes: number): number {
  return sizeBytes > PART_SIZE_BYTES ? PARTS_HELD * PART_SIZE_BYTES : new BodyBuffers(0).footprint(sizeBytes);
}
