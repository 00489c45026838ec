// The list of users that a person types or pastes.

/** The most users that one mutation accepts. */
export const MAX_USERS = 1000;

/** Return the ids. They are separated by spaces, commas, semicolons or line ends. */
export function parseIds(text: string): string[] {
  return text.split(/[\s,;]+/).filter(Boolean);
}

/** Return the keys, one a line. They may contain commas, and spaces also at their ends. */
export function parseKeys(text: string): string[] {
  return text.split(/\r?\n/).filter((line) => line.trim());
}

/** Return what is wrong with the number of users, or null. */
export function checkCount(count: number): string | null {
  if (count === 0) {
    return "Enter at least one user.";
  }
  return count > MAX_USERS ? `Enter at most ${MAX_USERS.toLocaleString()} users.` : null;
}
