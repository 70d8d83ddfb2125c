/** The exit codes of the command line. */
export const EXIT = { done: 0, failed: 1, usage: 2 } as const;

/** Ends a command with a message for people on stderr and this exit code. */
export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly exitCode: 1 | 2;

  constructor(message: string, exitCode: 1 | 2 = EXIT.failed) {
    super(message);
    this.exitCode = exitCode;
  }
}
