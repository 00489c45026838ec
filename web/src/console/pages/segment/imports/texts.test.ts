import { describe, expect, it } from "vitest";

import { changesOf, rejectedOf, sentence, statusOf } from "./texts";

const RECORD = {
    mode: "ADD",
    status: "COMPLETED",
    rows: 6,
    progress: 1,
    removals: 2,
    counts: [
        { outcome: "JOINED", count: 3 },
        { outcome: "MALFORMED", count: 1 },
        { outcome: "OUT_OF_RANGE", count: 1 },
    ],
} as const;

function record(changes: object = {}) {
    return { ...RECORD, counts: [...RECORD.counts], ...changes };
}

describe("changesOf", () => {
    it("says how many users join and leave", () => {
        const replace = record({ mode: "REPLACE" });
        expect(changesOf(replace)).toBe("3 users join and 2 users leave.");
        expect(changesOf(replace, true)).toBe("3 users joined and 2 users left.");
        expect(changesOf(record({ counts: [{ outcome: "JOINED", count: 1 }] }))).toBe(
            "1 user joins.",
        );
        expect(changesOf(record({ mode: "REMOVE", removals: 1 }))).toBe("1 user leaves.");
    });

    it("mentions changed ends only if there are some", () => {
        const counts = [{ outcome: "END_CHANGED", count: 2 }];
        expect(changesOf(record({ mode: "REPLACE", counts, removals: null }))).toBe(
            "0 users join, 2 users get a new end, and 0 users leave.",
        );
    });
});

describe("rejectedOf", () => {
    it("counts all kinds of rejected rows", () => {
        expect(rejectedOf(record())).toBe("2 rows are rejected.");
        expect(rejectedOf(record({ counts: [] }))).toBe("");
    });
});

describe("statusOf", () => {
    it("says whether an import has begun", () => {
        const applying = record({ status: "APPLYING" });
        expect(statusOf(applying)).toBe("The import is being applied.");
        expect(statusOf({ ...applying, progress: 0 })).toContain("queued");
    });

    it("tells a forecast from a result", () => {
        expect(statusOf(record({ status: "VALIDATED" }))).toContain("Nothing is changed yet.");
        expect(statusOf(record())).not.toContain("yet");
    });

    it("says what to do with a refused file", () => {
        expect(statusOf(record({ status: "REFUSED" }))).toContain("rejected rows");
        expect(statusOf(record({ status: "REFUSED", counts: [] }))).toContain("its format");
    });
});

describe("sentence", () => {
    it("begins with a capital and ends with a point", () => {
        expect(sentence("the list has no user")).toBe("The list has no user.");
        expect(sentence("Set `column`.")).toBe("Set column.");
        expect(sentence("")).toBe("");
    });
});
