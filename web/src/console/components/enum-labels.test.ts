import { expect, test } from "vitest";

import { labelOf, STATUS_LABELS } from "./enum-labels";

test("a known value has a label, and an unknown one is shown as it is", () => {
  expect(labelOf(STATUS_LABELS, "HELD")).toBe("Needs confirmation");
  expect(labelOf(STATUS_LABELS, "NEWER_STATUS")).toBe("NEWER STATUS");
});
