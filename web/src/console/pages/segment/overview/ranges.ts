// The time ranges of the chart.

import { WORDS_LOCALE } from "../../../format";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

const RANGES = [
  { value: "day", label: "24 hours", length: DAY },
  { value: "week", label: "7 days", length: 7 * DAY },
  { value: "month", label: "30 days", length: 30 * DAY },
  { value: "year", label: "12 months", length: 365 * DAY },
] as const;

/** The range from the creation on. */
export const ALL = { value: "all", label: "All" } as const;

export type RangeValue = (typeof RANGES)[number]["value"] | typeof ALL.value;

/** Return the ranges that begin after the creation, and "All". */
export function availableRanges(
  createdAt: string,
  now: number,
): { value: RangeValue; label: string }[] {
  const age = now - Date.parse(createdAt);
  const shorter = RANGES.filter(({ length }) => length < age);
  return [...shorter.map(({ value, label }) => ({ value, label })), ALL];
}

/** 30 days, or the time since the creation if that is shorter. */
export function defaultRange(createdAt: string, now: number): RangeValue {
  const hasMonth = availableRanges(createdAt, now).some(({ value }) => value === "month");
  return hasMonth ? "month" : ALL.value;
}

// The server rejects times in the future of its clock, which may be behind the browser's.
const CLOCK_DIFFERENCE = 10_000;

/** Return the times of the first and the last point. */
export function rangeTimes(
  range: RangeValue,
  createdAt: string,
  now: number,
): { from: string; to: string } {
  const created = Date.parse(createdAt);
  const length = RANGES.find(({ value }) => value === range)?.length;
  const to = Math.max(now - CLOCK_DIFFERENCE, created);
  const from = length === undefined ? created : Math.max(to - length, created);
  return { from: new Date(from).toISOString(), to: new Date(to).toISOString() };
}

/** Return the texts of the axis: times for a short span, dates for a long one. */
export function tickFormat(span: number): Intl.DateTimeFormat {
  if (span <= HOUR) {
    return new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
  }
  if (span <= DAY) {
    return new Intl.DateTimeFormat(undefined, { timeStyle: "short" });
  }
  if (span < 4 * DAY) {
    // Several of the five texts are on the same day.
    return new Intl.DateTimeFormat(undefined, {
      month: "short",
      day: "numeric",
      hour: "numeric",
    });
  }
  if (span <= 90 * DAY) {
    return new Intl.DateTimeFormat(WORDS_LOCALE, { month: "short", day: "numeric" });
  }
  return new Intl.DateTimeFormat(WORDS_LOCALE, { month: "short", year: "numeric" });
}

/** Return times at equal distances. The first and the last are the ends of the span. */
export function ticks(from: number, to: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => from + ((to - from) * i) / (count - 1));
}
