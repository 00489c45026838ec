import { describe, expect, it } from "vitest";

import { toLocal } from "./date-time-input";

describe("toLocal", () => {
    it("is the inverse of the input's value", () => {
        const at = "2026-03-01T10:20:30.000Z";
        expect(new Date(toLocal(at)).toISOString()).toBe(at);
    });

    it("is empty without a time", () => {
        expect(toLocal("")).toBe("");
    });
});
