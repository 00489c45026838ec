import { Alert, Group, Paper, Progress, Stack, Text, VisuallyHidden } from "@mantine/core";
import { CircleAlert } from "lucide-react";
import type { ReactNode } from "react";

import { FormattedNumber, StatusBadge, Time } from "../../../components/values";
import { formatPercent } from "../../../format";
import {
  describeForScreenReader,
  describeWork,
  isExpired,
  isWorking,
  nextStage,
  progressPercent,
  type Rollout,
} from "./rollout-state";

/** The id of the summary's element, which takes the focus from a button that disappears. */
export const SUMMARY_ID = "rollout-summary";

interface Props {
  rollout: Rollout;
  actions: ReactNode;
}

/** The status of a rollout, what happens next, and the progress of the current pass. */
export function RolloutSummary({ rollout, actions }: Props) {
  const { status, percent, failure, progress } = rollout;
  const isInterrupted =
    (status === "PAUSED" || status === "FAILED") && progress > 0 && progress < 1;
  return (
    <Paper withBorder p="md" id={SUMMARY_ID} tabIndex={-1}>
      <Stack gap="sm">
        <Group justify="space-between" align="flex-start">
          <Stack gap={4} flex="1 1 320px" miw={0}>
            <Group gap="sm">
              <Text fz={28} fw={650} lh={1.2}>
                {formatPercent(percent)}
              </Text>
              <StatusBadge status={status} />
            </Group>
            <Text c="dimmed">
              <StatusSentence rollout={rollout} />
            </Text>
          </Stack>
          {actions}
        </Group>
        {(isWorking(rollout) || isInterrupted) && <PassProgress rollout={rollout} />}
        {failure && (
          <Alert color="red" icon={<CircleAlert aria-hidden />} className="break">
            {failure}
          </Alert>
        )}
      </Stack>
      <VisuallyHidden aria-live="polite">{describeForScreenReader(rollout)}</VisuallyHidden>
    </Paper>
  );
}

function StatusSentence({ rollout }: { rollout: Rollout }) {
  const next = nextStage(rollout);
  const nextSentence = next && (
    <>
      {rollout.status === "SCHEDULED" ? "The first stage" : "The next stage"} (
      {formatPercent(next.percent)}) starts <Time at={next.startsAt} relative />.
    </>
  );
  switch (rollout.status) {
    case "RUNNING":
    case "WITHDRAWING":
      return describeWork(rollout);
    case "SCHEDULED":
      return nextSentence;
    case "WAITING":
      return <>The current stage is done. {nextSentence}</>;
    case "PAUSED":
      return next
        ? "The rollout is paused. The next stage is delayed until the pause ends."
        : "The rollout is paused. The stage continues after the pause.";
    case "COMPLETED":
      return isExpired(rollout, Date.now())
        ? "The memberships that the rollout added have ended."
        : "The last stage is done.";
    case "CANCELLED":
      return "The rollout is cancelled and adds no more users.";
    case "FAILED":
      return "Repeated attempts failed. The rollout continues when it is resumed.";
    default:
      return null;
  }
}

function PassProgress({ rollout }: { rollout: Rollout }) {
  const { usersTotal, usersSeen, progress, status } = rollout;
  const percent = progressPercent(progress);
  return (
    <div>
      <Group justify="space-between" mb={4} gap="xs">
        <Text size="sm">
          {usersTotal === 0 ? (
            "Counting the users"
          ) : (
            <>
              <FormattedNumber value={usersSeen} /> of <FormattedNumber value={usersTotal} /> users
              processed
            </>
          )}
        </Text>
        <Text size="sm" className="number">
          {percent}%
        </Text>
      </Group>
      <Progress
        value={percent}
        size="lg"
        color={isWorking(rollout) ? undefined : status === "FAILED" ? "red" : "yellow"}
        aria-label="Progress of the current stage"
      />
    </div>
  );
}
