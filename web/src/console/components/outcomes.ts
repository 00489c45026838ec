import { formatNumber } from "../format";
import type { RowOutcome } from "../graphql/operations";

interface OutcomeTexts {
  label: string;
  meaning: string;
  /** What follows the number 1, and what follows other numbers. */
  one: string;
  several: string;
}

const OUTCOMES: Record<RowOutcome, OutcomeTexts> = {
  JOINED: {
    label: "Join",
    meaning: "The user joins the segment.",
    one: "user joined",
    several: "users joined",
  },
  END_CHANGED: {
    label: "End changed",
    meaning: "The user is a member, and the end of the membership changes.",
    one: "membership got a new end",
    several: "memberships got a new end",
  },
  ALREADY_IN: {
    label: "Already a member",
    meaning: "The user is a member, and nothing changes.",
    one: "user was already a member",
    several: "users were already members",
  },
  LEFT: {
    label: "Leave",
    meaning: "The user leaves the segment.",
    one: "user left",
    several: "users left",
  },
  NOT_IN: {
    label: "Not a member",
    meaning: "The user to remove is not a member.",
    one: "user was not a member",
    several: "users were not members",
  },
  EXCLUDED: {
    label: "Excluded",
    meaning: "The segment's rollout excludes the user, who does not join.",
    one: "user is excluded from the segment's rollout",
    several: "users are excluded from the segment's rollout",
  },
  UNKNOWN_USER: {
    label: "Unknown user",
    meaning: "The user does not exist, and nothing changes.",
    one: "user does not exist",
    several: "users do not exist",
  },
  DUPLICATE: {
    label: "Repeated",
    meaning: "An earlier row has the same user.",
    one: "row repeats an earlier user",
    several: "rows repeat earlier users",
  },
  MALFORMED: {
    label: "Malformed",
    meaning: "The row is rejected: it has no valid id or key.",
    one: "row has no valid id or key",
    several: "rows have no valid id or key",
  },
  OUT_OF_RANGE: {
    label: "Id too large",
    meaning: "The row is rejected: no user can have such an id.",
    one: "row has an id that is too large",
    several: "rows have an id that is too large",
  },
  HEADER: {
    label: "Header",
    meaning: "The row has the names of the columns.",
    one: "row is a header",
    several: "rows are headers",
  },
  BLANK: {
    label: "Blank",
    meaning: "The row is empty.",
    one: "row is empty",
    several: "rows are empty",
  },
  NOT_REACHED: {
    label: "Not applied",
    meaning: "The import has not applied the row, or ended before it.",
    one: "row is not applied",
    several: "rows are not applied",
  },
};

/** Return the texts of an outcome. A newer server may have other outcomes. */
export function outcomeTexts(outcome: RowOutcome): OutcomeTexts {
  return OUTCOMES[outcome] ?? { label: outcome, meaning: "", one: outcome, several: outcome };
}

export interface OutcomeCount {
  outcome: RowOutcome;
  count: number;
}

/** Return a sentence about an outcome: "3 users joined." */
export function describeOutcome({ outcome, count }: OutcomeCount): string {
  const { one, several } = outcomeTexts(outcome);
  return `${formatNumber(count)} ${count === 1 ? one : several}.`;
}
