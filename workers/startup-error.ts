/** Thrown when a process can't do its work at all; the message says what to do. */
export class StartupError extends Error {
  override readonly name = 'StartupError';
}
