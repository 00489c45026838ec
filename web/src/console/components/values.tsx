// How the console shows times, numbers and enum values.

import { Badge, type MantineColor, Text, Tooltip } from "@mantine/core";

import { formatNumber, formatTime, relativeTime } from "../format";
import { CAUSE_LABELS, labelOf, OPERATION_LABELS, STATUS_LABELS } from "./enum-labels";

/**
 * A time in the browser's time zone. The tooltip has the exact time in UTC. The time takes the focus,
 * because the keyboard and a screen reader open the tooltip with it.
 */
export function Time({ at, relative = false }: { at: string; relative?: boolean }) {
  return (
    <Tooltip label={at} events={{ hover: true, focus: true, touch: true }}>
      <Text span inherit className="nowrap" component="time" dateTime={at} tabIndex={0}>
        {relative ? relativeTime(at) : formatTime(at)}
      </Text>
    </Tooltip>
  );
}

/** A number with separators of thousands, or a dash if it is unknown. */
export function FormattedNumber({ value }: { value: number | null | undefined }) {
  return <span className="nowrap">{value == null ? "–" : formatNumber(value)}</span>;
}

// A newer server may have other values. They are gray.
const STATUS_COLORS: Record<string, MantineColor> = {
  SCHEDULED: "blue",
  RUNNING: "blue",
  WAITING: "cyan",
  PAUSED: "yellow",
  COMPLETED: "teal",
  WITHDRAWING: "orange",
  CANCELLED: "gray",
  FAILED: "red",
  QUEUED: "gray",
  READY: "teal",
  AWAITING_UPLOAD: "gray",
  VALIDATING: "blue",
  VALIDATED: "cyan",
  HELD: "orange",
  APPLYING: "blue",
  REFUSED: "red",
  ACTIVE: "blue",
  DONE: "teal",
};

const CAUSE_COLORS: Record<string, MantineColor> = {
  MANUAL: "blue",
  ROLLOUT: "violet",
  TTL: "orange",
  SEGMENT_DELETED: "red",
  USER_DELETED: "red",
};

/** The status of a rollout, stage, report, import or export. */
export function StatusBadge({ status }: { status: string }) {
  return <EnumBadge label={labelOf(STATUS_LABELS, status)} color={STATUS_COLORS[status]} />;
}

export function CauseBadge({ cause }: { cause: string }) {
  return <EnumBadge label={labelOf(CAUSE_LABELS, cause)} color={CAUSE_COLORS[cause]} />;
}

export function OperationBadge({ operation }: { operation: string }) {
  return (
    <EnumBadge
      label={labelOf(OPERATION_LABELS, operation)}
      color={operation === "JOINED" ? "teal" : "gray"}
    />
  );
}

function EnumBadge({ label, color }: { label: string; color: MantineColor | undefined }) {
  return (
    // A text in the badge's own color has less contrast than WCAG AA requires.
    <Badge color={color ?? "gray"} c="bright" variant="light" tt="none" miw="max-content">
      {label}
    </Badge>
  );
}
