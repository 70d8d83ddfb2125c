import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { chooseLane, isTurnOf, type LaneState } from '../../src/queue/lane-choice.ts';
import { seededRandom } from './seeded-random.ts';

interface NamedLane extends LaneState {
  readonly name: string;
}

function lane(name: string, state: Partial<LaneState> = {}): NamedLane {
  return { name, ready: true, nextAt: undefined, running: 0, lastTurn: 0, ...state };
}

const open = (): boolean => true;

describe('the lane whose turn it is', () => {
  test('has the fewest jobs running', () => {
    const lanes = [lane('a', { running: 2 }), lane('b', { running: 1, lastTurn: 9 }), lane('c', { running: 3 })];
    expect(chooseLane(lanes, open)?.name).toBe('b');
  });

  test('of those alike, has waited longest', () => {
    const lanes = [lane('a', { lastTurn: 7 }), lane('b', { lastTurn: 3 }), lane('c', { lastTurn: 5 })];
    expect(chooseLane(lanes, open)?.name).toBe('b');
  });

  test('is none where nothing is ready', () => {
    expect(chooseLane([], open)).toBeUndefined();
    expect(chooseLane([lane('a', { ready: false })], open)).toBeUndefined();
  });

  test('is none whose gate is closed', () => {
    const lanes = [lane('a'), lane('b', { running: 5 })];
    expect(chooseLane(lanes, ({ name }) => name !== 'a')?.name).toBe('b');
    expect(chooseLane(lanes, () => false)).toBeUndefined();
  });
});

const states = fc.array(
  fc.record({
    ready: fc.boolean(),
    nextAt: fc.constant(undefined),
    running: fc.nat(40),
    lastTurn: fc.nat(1_000),
    open: fc.boolean(),
  }),
);

test('is always one that can be served, and no such lane has fewer jobs running', () => {
  fc.assert(
    fc.property(states, (lanes) => {
      const chosen = chooseLane(lanes, (state) => state.open);
      const servable = lanes.filter((state) => state.ready && state.open);
      const fewest = servable.length === 0 ? undefined : Math.min(...servable.map(({ running }) => running));
      expect(chosen?.running).toBe(fewest);
      if (chosen !== undefined) expect(servable).toContain(chosen);
    }),
  );
});

test('is the turn of the one that is chosen, and of no other but its equals', () => {
  fc.assert(
    fc.property(states, (lanes) => {
      const isOpen = (state: { readonly open: boolean }): boolean => state.open;
      const chosen = chooseLane(lanes, isOpen);
      const turns = lanes.filter((state) => isTurnOf(state, lanes, isOpen));
      const equals = lanes.filter(
        (state) => state.ready && state.open && state.running === chosen?.running && state.lastTurn === chosen.lastTurn,
      );
      expect(turns).toEqual(equals);
    }),
  );
});

/** Fills the slots as a dispatcher does, and ends a job at random when they are full. */
function simulate(backlogs: readonly number[], slots: number, turns: number, ends: () => number): number[] {
  const left = [...backlogs];
  const lanes = backlogs.map((_, index) => lane(String(index)));
  const running: NamedLane[] = [];
  const started = backlogs.map(() => 0);
  for (let turn = 1; turn <= turns; turn += 1) {
    if (running.length >= slots) {
      const [ended] = running.splice(Math.floor(ends() * running.length), 1);
      if (ended !== undefined) ended.running -= 1;
    }
    const chosen = chooseLane(lanes, open);
    if (chosen === undefined) break;
    const index = Number(chosen.name);
    chosen.lastTurn = turn;
    if (left[index] === 0) {
      chosen.ready = false;
      continue;
    }
    left[index] = (left[index] ?? 0) - 1;
    started[index] = (started[index] ?? 0) + 1;
    chosen.running += 1;
    running.push(chosen);
  }
  return started;
}

describe('over time', () => {
  test('a tenant with ten jobs is done with them while one with a hundred thousand goes on', () => {
    const [large = 0, small = 0] = simulate([100_000, 10], 8, 40, seededRandom(1));
    expect(small).toBe(10);
    expect(large).toBeGreaterThan(10);
  });

  test('an app that has no rivals gets every slot', () => {
    expect(simulate([100, 0, 0], 8, 50, () => 0)[0]).toBeGreaterThan(40);
  });

  test('no app starves, however many there are and whichever jobs end first', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 2, max: 12 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer(),
        (apps, slots, seed) => {
          const backlogs = Array.from({ length: apps }, () => 100_000);
          const started = simulate(backlogs, slots, apps * 60 + slots, seededRandom(seed));
          expect(Math.min(...started)).toBeGreaterThan(0);
        },
      ),
    );
  });
});
