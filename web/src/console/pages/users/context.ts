/**
 * The results of these queries depend on users, even if they contain none: the page of a user who is
 * not stored, or an empty list. A mutation with the same context makes them stale.
 */
export const USER_CONTEXT = { additionalTypenames: ["User"] };
