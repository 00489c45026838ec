import { expect, test } from "vitest";

import { availableRanges, defaultRange, rangeTimes, tickFormat, ticks } from "./ranges";

const NOW = Date.parse("2026-06-30T12:00:00Z");

test("a new segment has only the range from its creation on", () => {
  const createdAt = "2026-06-30T11:00:00.000000Z";
  expect(availableRanges(createdAt, NOW).map(({ value }) => value)).toEqual(["all"]);
  expect(defaultRange(createdAt, NOW)).toBe("all");
});

test("an old segment has all ranges and begins with 30 days", () => {
  const createdAt = "2020-01-01T00:00:00.000000Z";
  expect(availableRanges(createdAt, NOW).map(({ value }) => value)).toEqual([
    "day",
    "week",
    "month",
    "year",
    "all",
  ]);
  expect(defaultRange(createdAt, NOW)).toBe("month");
});

test("a range ends in the past and begins its length before", () => {
  expect(rangeTimes("day", "2020-01-01T00:00:00.000000Z", NOW)).toEqual({
    from: "2026-06-29T11:59:50.000Z",
    to: "2026-06-30T11:59:50.000Z",
  });
});

test("a range never begins before the creation", () => {
  const createdAt = "2026-06-30T11:59:55.000000Z";
  const created = "2026-06-30T11:59:55.000Z";
  expect(rangeTimes("day", createdAt, NOW)).toEqual({ from: created, to: created });
});

test("ticks include both ends", () => {
  expect(ticks(0, 10, 3)).toEqual([0, 5, 10]);
});

test("each text of the axis is different", () => {
  const hour = 3_600_000;
  for (const span of [1, 2, 23, 25, 95, 96, 720, 8760].map((hours) => hours * hour)) {
    const format = tickFormat(span);
    const texts = ticks(NOW - span, NOW, 5).map((at) => format.format(at));
    expect(new Set(texts).size).toBe(texts.length);
  }
});
