/**
 * Makes the system clock of a process another than that of this machine, which a test can't set: for `node --import`.
 *
 * It is ahead by CLOCK_AHEAD_MS, and by CLOCK_STEP_MS more from each SIGUSR2 on. Only `Date` is changed; what counts time
 * and not the hour goes on as before, as it does when a clock is set.
 */

const { CLOCK_AHEAD_MS, CLOCK_STEP_MS } = process.env;

const MachineDate = Date;
let aheadMs = Number(CLOCK_AHEAD_MS ?? 0);

class SteppedDate extends MachineDate {
  constructor(...given: unknown[]) {
    super(...((given.length === 0 ? [SteppedDate.now()] : given) as [number]));
  }

  static override now(): number {
    return MachineDate.now() + aheadMs;
  }
}

globalThis.Date = SteppedDate as DateConstructor;

process.on('SIGUSR2', () => {
  aheadMs += Number(CLOCK_STEP_MS ?? 0);
  process.stderr.write('the clock was stepped\n');
});
