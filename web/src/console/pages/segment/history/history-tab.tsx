import { Group, Skeleton, Stack, Text } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";

import { DateRangeInputs, isReversed } from "../../../components/date-range";
import { ErrorAlert } from "../../../components/errors";
import { useQueryKeepingData } from "../../../components/last-data";
import { HistoryTable } from "../../../components/history";
import { ShowAsGraphQL } from "../../../components/page";
import { PageButtons, usePagination } from "../../../components/pagination";
import { SEARCH_DELAY_MILLISECONDS } from "../../../components/search-delay";
import { SegmentHistoryDocument } from "../../../graphql/operations";

/** The joins and leaves of a segment, newest first. */
export function HistoryTab({ slug }: { slug: string }) {
  const [entered, setEntered] = useState({ from: "", to: "" });
  const [range] = useDebouncedValue(entered, SEARCH_DELAY_MILLISECONDS);
  const pagination = usePagination(JSON.stringify(range));
  const variables = {
    slug,
    from: range.from || null,
    to: range.to || null,
    after: pagination.after,
  };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: SegmentHistoryDocument,
    variables,
    pause: isReversed(range),
  });
  const entries = data?.history?.nodes;
  return (
    <Stack>
      <Group align="flex-start" justify="space-between">
        <Group align="flex-start">
          <DateRangeInputs value={entered} onChange={setEntered} />
        </Group>
        <ShowAsGraphQL document={SegmentHistoryDocument} variables={variables} />
      </Group>
      <ErrorAlert error={error} onRetry={refresh} />
      {!entries && fetching && <Skeleton h={320} />}
      {entries?.length === 0 && (
        <Text c="dimmed">
          {range.from || range.to
            ? "No user joined or left at these times."
            : "No user has joined this segment yet."}
        </Text>
      )}
      {entries && entries.length > 0 && (
        <HistoryTable entries={entries} label={`Joins and leaves of ${slug}`} withSegment={false} />
      )}
      <PageButtons pagination={pagination} pageInfo={data?.history?.pageInfo} />
    </Stack>
  );
}
