import { Grid, Loader, Stack } from "@mantine/core";

import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { SegmentOverviewDocument } from "../../../graphql/operations";
import { isWorking } from "../rollout/rollout-state";
import { Details } from "./details";
import { MemberCountHistory } from "./member-count-history";
import { RolloutCard } from "./rollout-card";

export function OverviewTab({ slug }: { slug: string }) {
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: SegmentOverviewDocument,
    variables: { slug },
  });
  const segment = data?.segment;
  if (!segment) {
    return fetching ? (
      <Loader aria-label="Loading the overview" />
    ) : (
      <ErrorAlert error={error} onRetry={refresh} />
    );
  }
  return (
    <Stack>
      <ErrorAlert error={error} onRetry={refresh} />
      <Grid>
        <Grid.Col span={{ base: 12, md: 8 }}>
          <MemberCountHistory
            slug={slug}
            createdAt={segment.createdAt}
            changing={!!segment.rollout && isWorking(segment.rollout)}
          />
        </Grid.Col>
        <Grid.Col span={{ base: 12, md: 4 }}>
          <Stack>
            <RolloutCard slug={slug} rollout={segment.rollout} onRefresh={refresh} />
            <Details segment={segment} />
          </Stack>
        </Grid.Col>
      </Grid>
    </Stack>
  );
}
