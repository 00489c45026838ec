import { expect, test } from "vitest";

import { type End, endInput } from "./duration";

const END: End = { kind: "never", amount: 2, unit: "days", expiresAt: "2030-01-01T00:00:00.000Z" };

test("the input has at most one of ttlSeconds and expiresAt", () => {
    expect(endInput(END)).toEqual({});
    expect(endInput({ ...END, kind: "after" })).toEqual({ ttlSeconds: 172_800 });
    expect(endInput({ ...END, kind: "at" })).toEqual({ expiresAt: END.expiresAt });
});

test("a part of a unit is rounded to seconds", () => {
    expect(endInput({ ...END, kind: "after", amount: "0.5", unit: "minutes" })).toEqual({
        ttlSeconds: 30,
    });
});
