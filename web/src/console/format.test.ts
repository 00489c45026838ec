import { describe, expect, it } from "vitest";

import {
  formatBytes,
  formatCompact,
  formatPercent,
  formatTime,
  relativeTime,
  timeFormat,
  wordsLocale,
} from "./format";

const NOW = Date.parse("2026-03-01T00:00:00Z");

describe("relativeTime", () => {
  it.each([
    ["2026-03-01T00:00:30Z", "in 30 seconds"],
    ["2026-02-28T23:59:00Z", "1 minute ago"],
    ["2026-03-02T23:59:00Z", "in 1 day"],
    ["2026-03-03T12:00:00Z", "in 2 days"],
    ["2025-02-28T00:00:00Z", "1 year ago"],
  ])("describes %s as %s", (at, text) => {
    expect(relativeTime(at, NOW)).toBe(text);
  });
});

it.each([
  [0, "0 B"],
  [999, "999 B"],
  [1_500, "1.5 kB"],
  [1_000_000, "1 MB"],
  [268_435_456, "268.4 MB"],
])("formats %d bytes as %s", (bytes, text) => {
  expect(formatBytes(bytes)).toBe(text);
});

it("keeps up to three decimals of a percentage", () => {
  expect(formatPercent(12.5)).toBe("12.5%");
  expect(formatPercent(0.125)).toBe("0.125%");
  expect(formatPercent(100)).toBe("100%");
});

describe("other languages than English", () => {
  it("have no names of months, because the other words are English", () => {
    const at = Date.parse("2026-05-10T10:20:30");
    expect(timeFormat("de-DE").format(at)).toBe("10.05.2026, 10:20:30");
    expect(timeFormat("fr-FR").format(at)).toBe("10/05/2026 10:20:30");
    expect(timeFormat("en-GB").format(at)).toBe("10 May 2026, 10:20:30");
  });

  it("have English words", () => {
    expect(wordsLocale("de-DE")).toBe("en");
    expect(wordsLocale("en-GB")).toBe("en-GB");
  });
});

it("shows a text that is not a time as it is", () => {
  expect(formatTime("notatime")).toBe("notatime");
});

it("writes the decimals of an abbreviated number as those of other numbers", () => {
  expect(formatCompact(1_350, ".")).toBe("1.35K");
  expect(formatCompact(1_350, ",")).toBe("1,35K");
  expect(formatCompact(700, ",")).toBe("700");
});
