import { FailureError, type Result } from '../failure.ts';

/** @throws FailureError */
export function unwrap<T>(result: Result<T>): T {
  if (!result.ok) throw new FailureError(result.failure);
  return result.value;
}
