import { DataList, Skeleton } from "@mantine/core";
import { useEffect, useRef } from "react";

import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { usePolling } from "../../../components/polling";
import { Section } from "../../../components/section";
import { FormattedNumber, Time } from "../../../components/values";
import { SegmentRolloutCountsDocument } from "../../../graphql/operations";
import { acceptsNewUsers, isWorking, type Rollout } from "./rollout-state";

interface Props {
  slug: string;
  rollout: Rollout;
}

/** The counts and times of a rollout. The server counts on each request, so it is asked rarely. */
export function RolloutDetails({ slug, rollout }: Props) {
  const [{ data, error }, refresh] = useQueryKeepingData({
    query: SegmentRolloutCountsDocument,
    variables: { slug },
  });
  usePolling(refresh, isWorking(rollout), 5_000);
  // The counts change until the end of a pass.
  const lastStatus = useRef(rollout.status);
  useEffect(() => {
    if (lastStatus.current !== rollout.status) {
      lastStatus.current = rollout.status;
      refresh({ requestPolicy: "network-only" });
    }
  }, [refresh, rollout.status]);
  const counts = data?.segment?.rollout;
  const count = (value: number | undefined) =>
    counts || error ? <FormattedNumber value={value} /> : <Skeleton w={80} h={16} my={3} />;

  return (
    <Section title="Details" h="100%">
      <DataList withDivider labelWidth={140}>
        <DataList.Item>
          <DataList.ItemLabel>Members added by the rollout</DataList.ItemLabel>
          <DataList.ItemValue>{count(counts?.enrolled)}</DataList.ItemValue>
        </DataList.Item>
        <DataList.Item>
          <DataList.ItemLabel>Users removed by hand</DataList.ItemLabel>
          <DataList.ItemValue>{count(counts?.excluded)}</DataList.ItemValue>
        </DataList.Item>
        <DataList.Item>
          <DataList.ItemLabel>New users</DataList.ItemLabel>
          <DataList.ItemValue>
            {acceptsNewUsers(rollout, Date.now()) ? "Join when they are created" : "Do not join"}
          </DataList.ItemValue>
        </DataList.Item>
        <DataList.Item>
          <DataList.ItemLabel>Memberships end</DataList.ItemLabel>
          <DataList.ItemValue>
            {rollout.expiresAt ? <Time at={rollout.expiresAt} /> : "Never"}
          </DataList.ItemValue>
        </DataList.Item>
        <DataList.Item>
          <DataList.ItemLabel>Started</DataList.ItemLabel>
          <DataList.ItemValue>
            {rollout.startedAt ? <Time at={rollout.startedAt} /> : "Not yet"}
          </DataList.ItemValue>
        </DataList.Item>
        {rollout.finishedAt && (
          <DataList.Item>
            <DataList.ItemLabel>Finished</DataList.ItemLabel>
            <DataList.ItemValue>
              <Time at={rollout.finishedAt} />
            </DataList.ItemValue>
          </DataList.Item>
        )}
      </DataList>
      <ErrorAlert error={error} onRetry={() => refresh({ requestPolicy: "network-only" })} />
    </Section>
  );
}
