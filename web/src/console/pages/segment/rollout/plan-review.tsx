import { Alert, List, Stack, Text } from "@mantine/core";
import { Users } from "lucide-react";

import { formatTime } from "../../../format";
import { describePlan, type PlanForm } from "./plan-form";
import { type ChangeCounts, describeChanges } from "./rollout-state";

interface Props {
  values: PlanForm;
  counts: ChangeCounts;
  /** Whether the segment has a plan already. */
  isReplaced: boolean;
}

// The review replaces the form, so it takes the focus, and screen readers read it.
function focus(element: HTMLDivElement | null): void {
  element?.focus();
}

/** A plan and the numbers of users who join and leave because of it. */
export function PlanReview({ values, counts, isReplaced }: Props) {
  const isStaged = values.kind === "stages" && values.stages.length > 1;
  return (
    <Stack>
      <Alert variant="light" icon={<Users aria-hidden />} role="group" ref={focus} tabIndex={-1}>
        <Text fw={600}>{describeChanges(counts, isStaged)}</Text>
      </Alert>
      <List>
        {describePlan(values).map((line) => (
          <List.Item key={line}>{line}</List.Item>
        ))}
      </List>
      <Text size="sm" c="dimmed">
        {values.enrollNewUsers ? "New users join" : "New users do not join"}.{" "}
        {values.expiresAt && `The memberships end ${formatTime(values.expiresAt)}. `}
        {isReplaced && "The plan replaces the current one."}
      </Text>
    </Stack>
  );
}
