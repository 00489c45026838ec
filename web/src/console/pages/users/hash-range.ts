/** Hashes of users are integers from 0 to 2^48 - 1. */
const HASHES = 2 ** 48;

/** Return the share of all hashes that are not above a bound, in percent. */
export function boundPercent(boundHash: number): number {
  return ((boundHash + 1) / HASHES) * 100;
}
