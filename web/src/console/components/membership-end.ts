import { isPositiveNumber, type Unit, UNIT_SECONDS } from "./duration";

/** The values of the fields that say when a membership ends. */
export interface MembershipEnd {
  kind: "never" | "after" | "at";
  amount: number | string;
  unit: Unit;
  expiresAt: string;
}

export const INITIAL_END: MembershipEnd = {
  kind: "never",
  amount: 30,
  unit: "days",
  expiresAt: "",
};

/** The fields of the form for those of the input. */
export const END_FIELDS = { ttlSeconds: "amount", expiresAt: "expiresAt" } as const;

/** Return the errors of values that the input cannot have. The server checks all others. */
export function validateEnd({ kind, amount, expiresAt }: MembershipEnd): {
  amount: string | null;
  expiresAt: string | null;
} {
  return {
    amount: kind === "after" && !isPositiveNumber(amount) ? "Enter a duration." : null,
    expiresAt: kind === "at" && !expiresAt ? "Enter a time." : null,
  };
}

/** Return the input fields for the end of a membership. */
export function toMembershipEndInput(end: MembershipEnd): {
  ttlSeconds?: number;
  expiresAt?: string;
} {
  switch (end.kind) {
    case "never":
      return {};
    case "after":
      return { ttlSeconds: Math.round(Number(end.amount) * UNIT_SECONDS[end.unit]) };
    case "at":
      return { expiresAt: end.expiresAt };
  }
}
