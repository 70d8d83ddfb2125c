import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ByteBudget, type Reservation } from '../../src/archive/byte-budget.ts';

const never = new AbortController().signal;
const TOTAL = 100;

type Step =
  | { readonly do: 'reserve'; readonly bytes: number }
  | { readonly do: 'release'; readonly which: number }
  | { readonly do: 'abort'; readonly which: number }
  /** In one turn: a place is given to a waiter that goes away. */
  | { readonly do: 'release-and-abort'; readonly which: number };

const anyStep: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('reserve' as const), bytes: fc.nat({ max: 150 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('release' as const), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('abort' as const), which: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('release-and-abort' as const), which: fc.nat() }) },
);

interface Wish {
  readonly id: number;
  readonly bytes: number;
  readonly controller: AbortController;
  reservation?: Reservation;
}

/** What a budget should do, in the plainest way. */
class Model {
  readonly held: Wish[] = [];
  readonly waiting: Wish[] = [];

  get usedBytes(): number {
    return this.held.reduce((sum, { bytes }) => sum + Math.min(bytes, TOTAL), 0);
  }

  settle(): void {
    for (let next = this.waiting[0]; next !== undefined; next = this.waiting[0]) {
      if (this.usedBytes + Math.min(next.bytes, TOTAL) > TOTAL) return;
      this.waiting.shift();
      this.held.push(next);
    }
  }
}

function pick<T>(list: T[], which: number): T | undefined {
  return list[which % Math.max(1, list.length)];
}

test('whatever comes and goes, it is never overdrawn, serves in turn and loses nobody', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(anyStep, { maxLength: 60 }), async (steps) => {
      const budget = new ByteBudget(TOTAL);
      const model = new Model();
      const granted: number[] = [];
      const refused: number[] = [];
      const expectedRefused: number[] = [];

      const release = (wish: Wish | undefined): void => {
        if (wish === undefined) return;
        model.held.splice(model.held.indexOf(wish), 1);
        wish.reservation?.release();
        wish.reservation?.release();
        model.settle();
      };
      const abort = (wish: Wish | undefined): void => {
        if (wish === undefined) return;
        const place = model.waiting.indexOf(wish);
        if (place !== -1) {
          model.waiting.splice(place, 1);
          expectedRefused.push(wish.id);
        }
        wish.controller.abort(wish.id);
        model.settle();
      };

      for (const [id, step] of steps.entries()) {
        if (step.do === 'reserve') {
          const wish: Wish = { id, bytes: step.bytes, controller: new AbortController() };
          model.waiting.push(wish);
          model.settle();
          budget.reserve(step.bytes, wish.controller.signal).then(
            (reservation) => {
              wish.reservation = reservation;
              granted.push(id);
            },
            (reason: unknown) => refused.push(Number(reason)),
          );
        } else if (step.do === 'release') {
          release(pick(model.held, step.which));
        } else if (step.do === 'abort') {
          abort(pick(model.waiting, step.which));
        } else {
          const next = model.waiting[0];
          release(pick(model.held, step.which));
          abort(next);
        }
        await turn();
        expect(budget.usedBytes).toBe(model.usedBytes);
        expect(budget.usedBytes).toBeLessThanOrEqual(TOTAL);
        expect(budget.waiting).toBe(model.waiting.length);
        expect(model.held.map(({ reservation }) => reservation?.bytes)).toEqual(
          model.held.map(({ bytes }) => Math.min(bytes, TOTAL)),
        );
        expect(refused).toEqual(expectedRefused);
      }
      while (model.held.length > 0) {
        release(model.held[0]);
        await turn();
      }
      expect({ used: budget.usedBytes, waiting: budget.waiting }).toEqual({ used: 0, waiting: 0 });
      expect(granted).toEqual(granted.toSorted((one, other) => one - other));
      const asked = steps.flatMap((step, id) => (step.do === 'reserve' ? [id] : []));
      expect([...granted, ...refused].toSorted((one, other) => one - other)).toEqual(asked);
    }),
    { numRuns: 300 },
  );
});

describe('a wish', () => {
  test('that fits is granted at once', async () => {
    const budget = new ByteBudget(TOTAL);
    using reservation = await budget.reserve(TOTAL, never);
    expect(reservation.bytes).toBe(TOTAL);
    expect(budget.usedBytes).toBe(TOTAL);
  });

  test('beyond the whole budget waits until it is alone, and then has all of it', async () => {
    const budget = new ByteBudget(TOTAL);
    const small = await budget.reserve(1, never);
    const large = budget.reserve(10 * TOTAL, never);
    expect(budget.waiting).toBe(1);
    small.release();
    using reservation = await large;
    expect(reservation.bytes).toBe(TOTAL);
    expect(budget.usedBytes).toBe(TOTAL);
  });

  test('that would fit does not overtake one that waits', async () => {
    const budget = new ByteBudget(TOTAL);
    const first = await budget.reserve(60, never);
    const large = budget.reserve(50, never);
    const small = budget.reserve(1, never);
    expect(budget.waiting).toBe(2);
    first.release();
    await Promise.all([large, small]);
    expect(budget.usedBytes).toBe(51);
  });

  test('that is given up throws the reason and lets those behind it through', async () => {
    const budget = new ByteBudget(TOTAL);
    using _held = await budget.reserve(60, never);
    const controller = new AbortController();
    const large = budget.reserve(100, controller.signal);
    const small = budget.reserve(40, never);
    const reason = new Error('stop');
    controller.abort(reason);
    await expect(large).rejects.toBe(reason);
    using reservation = await small;
    expect(reservation.bytes).toBe(40);
  });

  test('that was given up before throws the reason and takes nothing', async () => {
    const budget = new ByteBudget(TOTAL);
    const reason = new Error('stop');
    await expect(budget.reserve(1, AbortSignal.abort(reason))).rejects.toBe(reason);
    expect({ used: budget.usedBytes, waiting: budget.waiting }).toEqual({ used: 0, waiting: 0 });
  });

  test('that was granted does not mind an abort later', async () => {
    const budget = new ByteBudget(TOTAL);
    const controller = new AbortController();
    using reservation = await budget.reserve(10, controller.signal);
    controller.abort();
    expect(budget.usedBytes).toBe(10);
    reservation.release();
    expect(budget.usedBytes).toBe(0);
  });
});
