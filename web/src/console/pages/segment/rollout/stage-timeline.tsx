import { Group, Text, Timeline } from "@mantine/core";
import { Check, Clock, type LucideIcon, Play, SkipForward } from "lucide-react";

import { Section } from "../../../components/section";
import { StatusBadge, Time } from "../../../components/values";
import { formatPercent } from "../../../format";
import type { StageStatus } from "../../../graphql/operations";
import { currentStage, type Rollout, type Stage } from "./rollout-state";

const ICONS: Record<StageStatus, LucideIcon> = {
  PENDING: Clock,
  ACTIVE: Play,
  DONE: Check,
  SKIPPED: SkipForward,
};

export function StageTimeline({ rollout }: { rollout: Rollout }) {
  const { stages, status } = rollout;
  const current = currentStage(rollout);
  return (
    <Section title="Stages" h="100%">
      <Timeline
        active={current}
        bulletSize={26}
        lineWidth={2}
        autoContrast
        role="list"
        aria-label="Stages of the rollout"
      >
        {stages.map((stage, position) => {
          const Icon = ICONS[stage.status] ?? Clock;
          return (
            <Timeline.Item
              key={`${stage.startsAt} ${position}`}
              role="listitem"
              aria-current={position === current ? "step" : undefined}
              color={stage.status === "SKIPPED" ? "gray.7" : undefined}
              bullet={<Icon size={14} aria-hidden />}
              title={
                <Group gap="sm">
                  <Text span fw={600}>
                    {formatPercent(stage.percent)}
                  </Text>
                  <StatusBadge status={stage.status} />
                </Group>
              }
            >
              <Text size="sm" c="dimmed">
                <StageStart stage={stage} isPaused={status === "PAUSED"} />
              </Text>
            </Timeline.Item>
          );
        })}
      </Timeline>
    </Section>
  );
}

function StageStart({ stage, isPaused }: { stage: Stage; isPaused: boolean }) {
  const time = <Time at={stage.startsAt} />;
  if (stage.status !== "PENDING") {
    // A stage after the end of the rollout never starts.
    const verb = Date.parse(stage.startsAt) <= Date.now() ? "Started" : "Planned for";
    return (
      <>
        {verb} {time}
      </>
    );
  }
  if (isPaused) {
    return <>Planned for {time}, delayed by the pause</>;
  }
  return (
    <>
      Starts {time} (<Time at={stage.startsAt} relative />)
    </>
  );
}
