// What the console shows for the values of the API's enums.

import type {
  Cause,
  ExplanationReason,
  ImportMode,
  ImportStatus,
  Operation,
  ReportStatus,
  Role,
  RolloutStatus,
  StageStatus,
} from "../graphql/operations";

type Status = RolloutStatus | StageStatus | ReportStatus | ImportStatus;

export const STATUS_LABELS: Record<Status, string> = {
  SCHEDULED: "Scheduled",
  RUNNING: "Running",
  WAITING: "Waiting",
  PAUSED: "Paused",
  COMPLETED: "Completed",
  WITHDRAWING: "Withdrawing",
  CANCELLED: "Cancelled",
  FAILED: "Failed",
  QUEUED: "Queued",
  READY: "Ready",
  AWAITING_UPLOAD: "Waiting for the file",
  VALIDATING: "Checking",
  VALIDATED: "Checked",
  HELD: "Needs confirmation",
  APPLYING: "Applying",
  REFUSED: "Rejected",
  PENDING: "Pending",
  ACTIVE: "Active",
  DONE: "Done",
  SKIPPED: "Skipped",
};

export const CAUSE_LABELS: Record<Cause, string> = {
  MANUAL: "By hand",
  ROLLOUT: "Rollout",
  TTL: "Time limit",
  SEGMENT_DELETED: "Segment deleted",
  USER_DELETED: "User deleted",
};

export const OPERATION_LABELS: Record<Operation, string> = { JOINED: "Joined", LEFT: "Left" };

export const IMPORT_MODE_LABELS: Record<ImportMode, string> = {
  ADD: "Add",
  REMOVE: "Remove",
  REPLACE: "Replace all",
};

export const ROLE_LABELS: Record<Role, string> = {
  EVALUATOR: "Evaluator",
  READER: "Reader",
  EDITOR: "Editor",
  ADMIN: "Admin",
};

export const REASON_LABELS: Record<ExplanationReason, string> = {
  ADDED_BY_HAND: "Added by hand",
  IMPORTED: "Imported",
  IN_SAMPLE: "The rollout takes the user",
  ENROLLED_WHEN_STORED: "The rollout took the new user",
  NO_SUCH_SEGMENT: "The segment does not exist",
  SEGMENT_DELETED: "The segment is deleted",
  USER_NOT_STORED: "The user does not exist",
  NEVER_ADDED: "Never added",
  REMOVED_BY_HAND: "Removed by hand",
  EXCLUDED: "Excluded from the rollout",
  EXPIRED: "The membership ended",
  ABOVE_BOUND: "The rollout does not take the user",
  STAGE_NOT_STARTED: "The rollout has not started",
  PASS_NOT_FINISHED: "The rollout has not added the user yet",
  NEW_USERS_NOT_ENROLLED: "The rollout does not take new users",
  REMOVED_BY_ROLLOUT: "Removed by the rollout",
  ROLLOUT_EXPIRED: "The rollout's memberships ended",
  ROLLOUT_PAUSED: "The rollout is paused",
  ROLLOUT_STOPPED: "The rollout stopped",
  LEFT_WITH_USER: "The user was deleted",
};

/** Return the label of a value. A newer server may have values without a label. */
export function labelOf(labels: Readonly<Record<string, string>>, value: string): string {
  return labels[value] ?? value.replaceAll("_", " ");
}
