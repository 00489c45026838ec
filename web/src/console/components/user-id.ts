/** The largest id that the server accepts: the largest 64-bit integer. */
const MAX_USER_ID = 9_223_372_036_854_775_807n;

/** Whether a text has the format of a user's id. */
export function isUserId(text: string): boolean {
  return /^[1-9][0-9]{0,18}$/.test(text) && BigInt(text) <= MAX_USER_ID;
}

/** Return the keys that an entered text may mean: with its outer spaces, and without them. */
export function keysOf(text: string): string[] {
  return [...new Set([text, text.trim()])];
}
