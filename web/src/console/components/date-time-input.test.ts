import { describe, expect, it } from "vitest";

import { fromLocal, toLocal } from "./date-time-input";

describe("toLocal", () => {
  it("is the inverse of the input's value", () => {
    const at = "2026-03-01T10:20:30.000Z";
    expect(new Date(toLocal(at)).toISOString()).toBe(at);
  });

  it("is empty without a time", () => {
    expect(toLocal("")).toBe("");
  });

  it.each(["notatime", "+010000-06-01T00:00:00Z", "2026-13-01T00:00:00Z"])(
    "is empty for %s",
    (at) => {
      expect(toLocal(at)).toBe("");
    },
  );
});

describe("fromLocal", () => {
  it("is the inverse of toLocal", () => {
    const at = "2026-03-01T10:20:30.000Z";
    expect(fromLocal(toLocal(at))).toBe(at);
  });

  it("is empty if nothing is entered", () => {
    expect(fromLocal("")).toBe("");
  });

  it.each(["12026-03-01T10:20", "275760-12-31T10:20", "2026-13-01T10:20"])(
    "is null for %s",
    (entered) => {
      expect(fromLocal(entered)).toBeNull();
    },
  );
});
