import { Anchor, Progress, Stack, Text } from "@mantine/core";
import { Link } from "wouter";

import { useSession } from "../../../app/session";
import { segmentPath } from "../../../components/links";
import { usePolling } from "../../../components/polling";
import { Section } from "../../../components/section";
import { StatusBadge, Time } from "../../../components/values";
import { formatPercent } from "../../../format";
import type { SegmentOverviewQuery } from "../../../graphql/operations";
import { isWorking, nextStage } from "../rollout/rollout-state";

type Rollout = NonNullable<SegmentOverviewQuery["segment"]>["rollout"];

interface Props {
  slug: string;
  rollout: Rollout;
  onRefresh: (options: { requestPolicy: "network-only" }) => void;
}

/** The state of the rollout in short, with a link to its tab. */
export function RolloutCard({ slug, rollout, onRefresh }: Props) {
  const { hasRole } = useSession();
  const isChanging = !!rollout && isWorking(rollout);
  usePolling(onRefresh, isChanging, 2000);
  const next = rollout && nextStage(rollout);
  return (
    <Section title="Rollout" actions={rollout && <StatusBadge status={rollout.status} />}>
      <Stack gap="sm">
        {rollout ? (
          <>
            <Text size="sm">{formatPercent(rollout.percent)} of all users.</Text>
            {isChanging && (
              <Progress.Root size="lg">
                <Progress.Section
                  value={rollout.progress * 100}
                  aria-label="Progress of the rollout"
                />
              </Progress.Root>
            )}
            {next && (
              <Text size="sm">
                {formatPercent(next.percent)} from <Time at={next.startsAt} />.
              </Text>
            )}
            {rollout.expiresAt && (
              <Text size="sm">
                The memberships end <Time at={rollout.expiresAt} relative />.
              </Text>
            )}
            {rollout.failure && (
              <Text size="sm" className="break">
                {rollout.failure}
              </Text>
            )}
          </>
        ) : (
          <Text size="sm" c="dimmed">
            This segment has no rollout.
          </Text>
        )}
        <Anchor component={Link} href={segmentPath(slug, "rollout")} size="sm">
          {!rollout && hasRole("EDITOR") ? "Set a rollout" : "Show the rollout"}
        </Anchor>
      </Stack>
    </Section>
  );
}
