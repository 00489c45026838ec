import { expect, it } from "vitest";

import { decodePart } from "./hash-location";

it.each([
  ["beta", "beta"],
  ["100%25", "100%"],
  ["a%2Fb", "a/b"],
  ["100%", null],
  ["%E0%A4%A", null],
  ["%ZZ", null],
])("decodes %s as %s", (part, text) => {
  expect(decodePart(part)).toBe(text);
});
