/** The months for a list to choose from. */
export const MONTHS = Array.from({ length: 12 }, (_, index) => ({
  value: String(index + 1),
  label: new Intl.DateTimeFormat("en", { month: "long", timeZone: "UTC" }).format(
    Date.UTC(2000, index),
  ),
}));

/** Return the month before a time, in UTC. */
export function lastMonth(now: Date): { year: number; month: string } {
  const first = new Date(Date.UTC(now.getUTCFullYear(), now.getUTCMonth() - 1));
  return { year: first.getUTCFullYear(), month: String(first.getUTCMonth() + 1) };
}

/** Whether the value of an input is a year for which a report is possible. */
export function isYear(value: number | string): boolean {
  return Number.isInteger(Number(value)) && Number(value) >= 2000 && Number(value) <= 9999;
}
