import { expect, test } from "vitest";

import { isUserId } from "./user-id";

test("ids are positive 64-bit integers without leading zeros", () => {
  expect(isUserId("1")).toBe(true);
  expect(isUserId("9223372036854775807")).toBe(true);
  expect(isUserId("9223372036854775808")).toBe(false);
  expect(isUserId("0")).toBe(false);
  expect(isUserId("007")).toBe(false);
  expect(isUserId("1e3")).toBe(false);
  expect(isUserId("")).toBe(false);
});
