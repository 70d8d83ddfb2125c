/** The least of them that this share of all do not exceed, as 0.99; 0 where there are none. @param sorted upwards. */
export function quantile(sorted: readonly number[], share: number): number {
  return sorted[Math.ceil(share * sorted.length) - 1] ?? 0;
}
