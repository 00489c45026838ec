import { expect, it } from "vitest";

import { lastMonth } from "./months";

it.each([
  ["2026-03-31T23:59:59Z", 2026, "2"],
  ["2026-01-01T00:00:00Z", 2025, "12"],
])("returns the month before %s", (now, year, month) => {
  expect(lastMonth(new Date(now))).toEqual({ year, month });
});
