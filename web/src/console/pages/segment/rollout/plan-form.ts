// The values of the form for a rollout's plan, and the input of the mutation.

import { type Unit, UNIT_SECONDS } from "../../../components/duration";
import { formatPercent, formatTime } from "../../../format";
import type { RolloutInput } from "../../../graphql/operations";
import { currentStage, type Rollout } from "./rollout-state";

export const MAX_STAGES = 50;
const MAX_INT = 2_147_483_647;

/** A number field holds a text while it is empty. */
type NumberValue = number | string;

export interface StageForm {
  percent: NumberValue;
  start: "NOW" | "AFTER" | "AT";
  /** The time if `start` is AT. */
  startsAt: string;
  /** The delay in `unit` if `start` is AFTER. */
  after: NumberValue;
  unit: Unit;
}

export interface PlanForm {
  kind: "percent" | "stages";
  percent: NumberValue;
  stages: StageForm[];
  enrollNewUsers: boolean;
  expiresAt: string;
}

const FIRST_STAGE: StageForm = { percent: "", start: "NOW", startsAt: "", after: 1, unit: "days" };

/** Return a stage that starts a day after the previous one. */
export function newStage(): StageForm {
  return { ...FIRST_STAGE, start: "AFTER" };
}

/** Return the form for a new plan, or for what remains of a rollout's plan. */
export function toPlanForm(rollout: Rollout | null, now: number): PlanForm {
  if (!rollout) {
    return {
      kind: "percent",
      percent: "",
      stages: [FIRST_STAGE, newStage()],
      enrollNewUsers: true,
      expiresAt: "",
    };
  }
  const current = currentStage(rollout);
  const stages = rollout.stages.slice(Math.max(current, 0)).map((stage, position, remaining) => {
    const percent = stage.percent;
    const previous = remaining[position - 1];
    if (position === 0 && current >= 0) {
      return { ...FIRST_STAGE, percent };
    }
    // A pause delays the stages, so their times may be in the past.
    if (previous && Date.parse(stage.startsAt) <= now) {
      const delay = Date.parse(stage.startsAt) - Date.parse(previous.startsAt);
      return { ...newStage(), percent, ...toDelay(delay / 1000) };
    }
    return { ...FIRST_STAGE, percent, start: "AT" as const, startsAt: stage.startsAt };
  });
  const isFuture = rollout.expiresAt != null && Date.parse(rollout.expiresAt) > now;
  return {
    kind: stages.length > 1 || current < 0 ? "stages" : "percent",
    percent: stages[0]?.percent ?? "",
    stages: stages.length > 1 || current < 0 ? stages : [...stages, newStage()],
    enrollNewUsers: rollout.enrollNewUsers,
    expiresAt: isFuture ? (rollout.expiresAt ?? "") : "",
  };
}

/** Return a delay in the largest unit that represents it exactly. */
export function toDelay(seconds: number): { after: number; unit: Unit } {
  const whole = Math.max(1, Math.round(seconds));
  for (const unit of ["days", "hours", "minutes"] as const) {
    if (whole % UNIT_SECONDS[unit] === 0) {
      return { after: whole / UNIT_SECONDS[unit], unit };
    }
  }
  return { after: whole, unit: "seconds" };
}

/** Return the errors of empty and incomplete fields. The server checks all values. */
export function validatePlan(values: PlanForm): Record<string, string> {
  const errors: Record<string, string> = {};
  if (values.kind === "percent") {
    if (!isNumber(values.percent)) {
      errors.percent = "Enter a percentage.";
    }
    return errors;
  }
  values.stages.forEach((stage, position) => {
    const field = `stages.${position}`;
    if (!isNumber(stage.percent)) {
      errors[`${field}.percent`] = "Enter a percentage.";
    }
    if (stage.start === "AFTER" && !isNumber(stage.after)) {
      errors[`${field}.after`] = "Enter a delay.";
    }
    if (stage.start === "AT" && stage.startsAt === "") {
      errors[`${field}.startsAt`] = "Enter a time.";
    }
  });
  return errors;
}

/** A number field may hold a part of a number, such as "-". */
function isNumber(value: NumberValue): boolean {
  return value !== "" && Number.isFinite(Number(value));
}

export function toRolloutInput(values: PlanForm): RolloutInput {
  const common = { enrollNewUsers: values.enrollNewUsers, expiresAt: values.expiresAt || null };
  if (values.kind === "percent") {
    return { percent: Number(values.percent), ...common };
  }
  const stages = values.stages.map((stage) => ({
    percent: Number(stage.percent),
    startsAt: stage.start === "AT" ? stage.startsAt : null,
    afterSeconds: stage.start === "AFTER" ? toSeconds(stage) : null,
  }));
  return { stages, ...common };
}

/** Return the delay of a stage. The server shows its error at the field only for a GraphQL Int. */
function toSeconds({ after, unit }: StageForm): number {
  const seconds = Math.round(Number(after) * UNIT_SECONDS[unit]);
  return Math.min(Math.max(seconds, -MAX_INT), MAX_INT);
}

/**
 * Return an input with the remaining stages of a rollout in quick succession. Its dry run counts the
 * users who join and leave if the rollout continues. The times of the stages do not matter, except
 * that a first stage of the future removes all members first. So the stages start now if one has
 * started before. A stage that is done is not repeated, because it would remove members.
 */
export function toContinuation(rollout: Rollout): RolloutInput {
  const current = currentStage(rollout);
  const isDone = rollout.stages[current]?.status === "DONE" && current + 1 < rollout.stages.length;
  const first = Math.max(isDone ? current + 1 : current, 0);
  const stages = rollout.stages.slice(first).map(({ percent }, position) => ({
    percent,
    afterSeconds: position === 0 && current >= 0 ? 0 : 60,
  }));
  return { stages, enrollNewUsers: rollout.enrollNewUsers };
}

/** Return the form's field for a path into the input of `setRollout`. */
export function toField(path: string[]): string {
  const [first, ...rest] = path[0] === "rollout" ? path.slice(1) : path;
  if (first !== "stages") {
    return path.at(-1) ?? "";
  }
  const [position, name = "percent"] = rest;
  return `stages.${position}.${name === "afterSeconds" ? "after" : name}`;
}

/** Return when a stage of the form starts: "now", "1 hour after stage 1", or a time. */
export function describeStart(stage: StageForm, position: number): string {
  if (stage.start === "NOW") {
    return "now";
  }
  if (stage.start === "AT") {
    return formatTime(stage.startsAt);
  }
  const unit = Number(stage.after) === 1 ? stage.unit.slice(0, -1) : stage.unit;
  return `${stage.after} ${unit} ${position === 0 ? "from now" : `after stage ${position}`}`;
}

/** Return the lines that describe the plan of the form. */
export function describePlan(values: PlanForm): string[] {
  if (values.kind === "percent") {
    return [`${formatPercent(Number(values.percent))} of all users, from now on.`];
  }
  return values.stages.map(
    (stage, position) =>
      `Stage ${position + 1}: ${formatPercent(Number(stage.percent))} of all users, ` +
      `${describeStart(stage, position)}.`,
  );
}
