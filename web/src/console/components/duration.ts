export const UNITS = { minutes: 60, hours: 3_600, days: 86_400, weeks: 604_800 } as const;

export type Unit = keyof typeof UNITS;

/** The values of the fields that say when a membership ends. */
export interface End {
    kind: "never" | "after" | "at";
    amount: number | string;
    unit: Unit;
    expiresAt: string;
}

/** Return the input fields for the end of a membership. */
export function endInput(end: End): { ttlSeconds?: number; expiresAt?: string } {
    switch (end.kind) {
        case "never":
            return {};
        case "after":
            return { ttlSeconds: Math.round(Number(end.amount) * UNITS[end.unit]) };
        case "at":
            return { expiresAt: end.expiresAt };
    }
}
