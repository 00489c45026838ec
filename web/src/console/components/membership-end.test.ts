import { expect, test } from "vitest";

import {
  INITIAL_END,
  type MembershipEnd,
  toMembershipEndInput,
  validateEnd,
} from "./membership-end";

const END: MembershipEnd = { ...INITIAL_END, amount: 2, expiresAt: "2030-01-01T00:00:00.000Z" };

test("the input has at most one of ttlSeconds and expiresAt", () => {
  expect(toMembershipEndInput(END)).toEqual({});
  expect(toMembershipEndInput({ ...END, kind: "after" })).toEqual({ ttlSeconds: 172_800 });
  expect(toMembershipEndInput({ ...END, kind: "at" })).toEqual({ expiresAt: END.expiresAt });
});

test("a part of a unit is rounded to seconds", () => {
  expect(toMembershipEndInput({ ...END, kind: "after", amount: "0.5", unit: "minutes" })).toEqual({
    ttlSeconds: 30,
  });
});

test("only the field that is shown may not be empty", () => {
  const empty = { ...END, amount: "", expiresAt: "" };
  expect(validateEnd(empty)).toEqual({ amount: null, expiresAt: null });
  expect(validateEnd({ ...empty, kind: "after" }).amount).toBe("Enter a duration.");
  expect(validateEnd({ ...empty, kind: "at" }).expiresAt).toBe("Enter a time.");
});

test.each(["-", "-1", "0", 0, ".", "1e999"])("%s is not a duration", (amount) => {
  expect(validateEnd({ ...END, kind: "after", amount }).amount).toBe("Enter a duration.");
});
