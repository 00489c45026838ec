import { formatNumber } from "../../../format";
import type { RowOutcome } from "../../../graphql/operations";

// Texts for one user and for several. A newer server may have other outcomes.
const TEXTS: Partial<Record<RowOutcome, [string, string]>> = {
    JOINED: ["user joined", "users joined"],
    END_CHANGED: ["membership got a new end", "memberships got a new end"],
    ALREADY_IN: ["user was already a member", "users were already members"],
    LEFT: ["user left", "users left"],
    NOT_IN: ["user was not a member", "users were not members"],
    DUPLICATE: ["row repeats an earlier user", "rows repeat earlier users"],
    EXCLUDED: [
        "user is excluded from the segment's rollout",
        "users are excluded from the segment's rollout",
    ],
    UNKNOWN_USER: ["user does not exist", "users do not exist"],
};

export interface OutcomeCount {
    outcome: RowOutcome;
    count: number;
}

/** Return a sentence about an outcome: "3 users joined." */
export function describeOutcome({ outcome, count }: OutcomeCount): string {
    const [one, several] = TEXTS[outcome] ?? [outcome, outcome];
    return `${formatNumber(count)} ${count === 1 ? one : several}.`;
}
