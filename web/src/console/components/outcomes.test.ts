import { expect, test } from "vitest";

import { describeOutcome } from "./outcomes";

test("an outcome is described for one user and for several", () => {
  expect(describeOutcome({ outcome: "JOINED", count: 1 })).toBe("1 user joined.");
  expect(describeOutcome({ outcome: "END_CHANGED", count: 3 })).toBe(
    "3 memberships got a new end.",
  );
  expect(describeOutcome({ outcome: "JOINED", count: 1200 })).toBe("1,200 users joined.");
});
