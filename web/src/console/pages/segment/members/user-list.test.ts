import { expect, test } from "vitest";

import { checkCount, parseIds, parseKeys } from "./user-list";

test("ids are separated by spaces, commas, semicolons and line ends", () => {
  expect(parseIds(" 1, 2;3\n\n4\t5 ")).toEqual(["1", "2", "3", "4", "5"]);
  expect(parseIds("  \n")).toEqual([]);
});

test("keys keep their spaces and commas", () => {
  expect(parseKeys(" ann smith \r\n  \n\nb,c\n")).toEqual([" ann smith ", "b,c"]);
});

test("a list has 1 to 1000 users", () => {
  expect(checkCount(0)).toBe("Enter at least one user.");
  expect(checkCount(1)).toBeNull();
  expect(checkCount(1000)).toBeNull();
  expect(checkCount(1001)).toBe("Enter at most 1,000 users.");
});
