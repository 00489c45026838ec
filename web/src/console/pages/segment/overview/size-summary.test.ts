import { expect, test } from "vitest";

import { describeSize } from "./size-summary";

const points = (...counts: number[]) => counts.map((count, i) => ({ at: i * 1000, count }));

test("growth is described with the lowest and the highest size", () => {
    const text = describeSize(points(5, 2, 9));
    expect(text).toMatch(/^4 more members than at /);
    expect(text).toContain("The lowest number is 2, the highest is 9.");
});

test("a loss of one member is singular", () => {
    expect(describeSize(points(5, 4))).toMatch(/^1 fewer member than at /);
});

test("a size that returns to its start is not a change", () => {
    expect(describeSize(points(5, 7, 5))).toMatch(/^As many members as at /);
});

test("a constant size has no lowest and highest", () => {
    expect(describeSize(points(3, 3))).toMatch(
        /^The number of members is the same at all times shown since /,
    );
});

test("without points there is no text", () => {
    expect(describeSize([])).toBe("");
});
