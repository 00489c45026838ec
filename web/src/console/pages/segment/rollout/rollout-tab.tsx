import { Button, EmptyState, Grid, Group, Loader, Stack } from "@mantine/core";
import { ChartNoAxesColumnIncreasing, Pencil } from "lucide-react";

import { useSession } from "../../../app/session";
import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { ShowAsGraphQL } from "../../../components/page";
import { usePolling } from "../../../components/polling";
import { SegmentRolloutDocument } from "../../../graphql/operations";
import { useSetRolloutDialog } from "./dialogs";
import { RolloutActions } from "./rollout-actions";
import { RolloutDetails } from "./rollout-details";
import { pollingInterval } from "./rollout-state";
import { RolloutSummary } from "./rollout-summary";
import { StageTimeline } from "./stage-timeline";

export function RolloutTab({ slug }: { slug: string }) {
  const variables = { slug };
  const [{ data, error }, refresh] = useQueryKeepingData({
    query: SegmentRolloutDocument,
    variables,
  });
  const { hasRole } = useSession();
  const openSetDialog = useSetRolloutDialog();
  const segment = data?.segment;
  const rollout = segment?.rollout;
  const interval = rollout ? pollingInterval(rollout, Date.now()) : null;
  usePolling(refresh, interval !== null, interval ?? undefined);

  const setButton = segment && hasRole("EDITOR") && (
    <Button
      variant={rollout ? "default" : "filled"}
      leftSection={<Pencil size={16} aria-hidden />}
      onClick={() => openSetDialog({ slug, version: segment.version, rollout: rollout ?? null })}
    >
      {rollout ? "Change the plan" : "Set a rollout"}
    </Button>
  );

  return (
    <Stack>
      <ErrorAlert error={error} onRetry={() => refresh({ requestPolicy: "network-only" })} />
      {!segment && !error && <Loader aria-label="Loading the rollout" />}
      {rollout && (
        <>
          <RolloutSummary
            rollout={rollout}
            actions={
              hasRole("EDITOR") && (
                <Group gap="xs">
                  {setButton}
                  <RolloutActions slug={slug} rollout={rollout} />
                </Group>
              )
            }
          />
          <Grid gap="md" align="stretch">
            <Grid.Col span={{ base: 12, md: 7 }}>
              <StageTimeline rollout={rollout} />
            </Grid.Col>
            <Grid.Col span={{ base: 12, md: 5 }}>
              <RolloutDetails slug={slug} rollout={rollout} />
            </Grid.Col>
          </Grid>
        </>
      )}
      {segment && !rollout && (
        <EmptyState
          py="xl"
          icon={<ChartNoAxesColumnIncreasing aria-hidden />}
          title="This segment has no rollout"
          description="A rollout puts a percentage of all users into the segment, at once or in stages."
        >
          {setButton && <EmptyState.Actions>{setButton}</EmptyState.Actions>}
        </EmptyState>
      )}
      <Group justify="flex-end">
        <ShowAsGraphQL document={SegmentRolloutDocument} variables={variables} />
      </Group>
    </Stack>
  );
}
