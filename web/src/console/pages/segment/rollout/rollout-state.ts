// What follows from a rollout's status: its actions, its remaining stages, and what the page says.

import { formatNumber, formatPercent } from "../../../format";
import type { RolloutFieldsFragment, RolloutStatus } from "../../../graphql/operations";

export type Rollout = RolloutFieldsFragment;
export type Stage = Rollout["stages"][number];
export type RolloutAction = "pause" | "resume" | "cancel" | "withdraw";

const ACTIONS: Record<RolloutStatus, readonly RolloutAction[]> = {
  SCHEDULED: ["pause", "cancel", "withdraw"],
  RUNNING: ["pause", "cancel", "withdraw"],
  WAITING: ["pause", "cancel", "withdraw"],
  PAUSED: ["resume", "cancel", "withdraw"],
  FAILED: ["resume", "cancel", "withdraw"],
  COMPLETED: ["cancel", "withdraw"],
  WITHDRAWING: [],
  CANCELLED: [],
};

/** Return the actions that the server accepts. A newer server may have other statuses. */
export function allowedActions(status: RolloutStatus): readonly RolloutAction[] {
  return ACTIONS[status] ?? [];
}

/** Whether workers are adding or removing members. */
export function isWorking({ status }: Pick<Rollout, "status">): boolean {
  return status === "RUNNING" || status === "WITHDRAWING";
}

/** Whether a withdrawal failed. Resuming the rollout continues the withdrawal. */
export function isFailedWithdrawal({ status, stages }: Rollout): boolean {
  return status === "FAILED" && stages.every((stage) => isFinished(stage));
}

function isFinished({ status }: Stage): boolean {
  return status === "DONE" || status === "SKIPPED";
}

export function isExpired({ expiresAt }: Rollout, now: number): boolean {
  return expiresAt != null && Date.parse(expiresAt) <= now;
}

/** Whether users who are created from now on join, at the percentage of the current stage. */
export function acceptsNewUsers(rollout: Rollout, now: number): boolean {
  const hasEnded = rollout.status === "CANCELLED" || rollout.status === "WITHDRAWING";
  return rollout.enrollNewUsers && !hasEnded && !isExpired(rollout, now);
}

/** Return the position of the stage that has started last, or -1 before the first one. */
export function currentStage({ stages }: Rollout): number {
  return stages.findLastIndex(({ status }) => status !== "PENDING");
}

/** Return the stage that starts next. None if the rollout has ended. */
export function nextStage({ stages }: Pick<Rollout, "stages">): Stage | undefined {
  return stages.find(({ status }) => status === "PENDING");
}

/**
 * Return the milliseconds until the page asks for the rollout again, or null if nothing changes by
 * itself. The last minute before a stage is shown as a countdown. A stage that is overdue for longer
 * waits for a worker.
 */
export function pollingInterval(rollout: Rollout, now: number): number | null {
  if (isWorking(rollout)) {
    return 1_000;
  }
  if (rollout.status !== "SCHEDULED" && rollout.status !== "WAITING") {
    return null;
  }
  const next = nextStage(rollout);
  return next && Math.abs(Date.parse(next.startsAt) - now) < 60_000 ? 1_000 : 10_000;
}

/** Return the percentage of a pass as an integer. It is 100 only if the pass is done. */
export function progressPercent(progress: number): number {
  return Math.floor(progress * 100);
}

const STATUS_SENTENCES: Record<RolloutStatus, string> = {
  SCHEDULED: "The rollout has not started.",
  RUNNING: "The rollout is adding or removing members.",
  WAITING: "The rollout waits for its next stage.",
  PAUSED: "The rollout is paused.",
  COMPLETED: "The rollout is complete.",
  WITHDRAWING: "The rollout is being withdrawn.",
  CANCELLED: "The rollout is cancelled.",
  FAILED: "The rollout has failed.",
};

/** Return what a screen reader announces: a new status, and each quarter of a pass. */
export function describeForScreenReader(rollout: Rollout): string {
  const status = STATUS_SENTENCES[rollout.status] ?? "";
  if (!isWorking(rollout)) {
    return status;
  }
  const quarters = Math.floor(rollout.progress * 4) * 25;
  return `${status} ${quarters}% of the users are processed.`;
}

export interface ChangeCounts {
  /** Null if the server did not count them in time. */
  joining: number | null;
  leaving: number | null;
}

/** Return a sentence such as "3 users join and 1 member leaves." */
export function describeChanges({ joining, leaving }: ChangeCounts, staged = false): string {
  if (joining === null || leaving === null) {
    return "It is not known how many users join and leave: the count takes too long.";
  }
  const start = staged ? "Until the last stage is done, " : "";
  const sentence = `${join(joining)} and ${leave(leaving)}.`;
  if (joining === 0 && leaving === 0) {
    return `${start}${start ? "no" : "No"} user joins or leaves.`;
  }
  return start ? start + sentence : sentence.charAt(0).toUpperCase() + sentence.slice(1);
}

function join(count: number): string {
  return count === 0
    ? "no user joins"
    : `${formatNumber(count)} ${count === 1 ? "user joins" : "users join"}`;
}

function leave(count: number): string {
  return count === 0
    ? "no user leaves"
    : `${formatNumber(count)} ${count === 1 ? "user leaves" : "users leave"}`;
}

/** Return what the current pass does. */
export function describeWork(rollout: Rollout): string {
  if (rollout.status === "WITHDRAWING") {
    return "The members that the rollout added leave.";
  }
  if (currentStage(rollout) < 0) {
    return "The members of the previous plan leave.";
  }
  return `Users join or leave until the rollout has ${formatPercent(rollout.percent)} of all users.`;
}
