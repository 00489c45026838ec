import { expect, test } from "vitest";

import { boundPercent } from "./hash-range";

test("a bound includes its own hash", () => {
  expect(boundPercent(2 ** 48 - 1)).toBe(100);
  expect(boundPercent(2 ** 47 - 1)).toBe(50);
  expect(boundPercent(-1)).toBe(0);
});
