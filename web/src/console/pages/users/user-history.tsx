import { SimpleGrid, Skeleton, Text } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";

import { DateRangeInputs, isReversed } from "../../components/date-range";
import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { HistoryTimeline } from "../../components/history";
import { ShowAsGraphQL } from "../../components/page";
import { PageButtons, usePagination } from "../../components/pagination";
import { SEARCH_DELAY_MILLISECONDS } from "../../components/search-delay";
import { Section } from "../../components/section";
import { SlugInput } from "../../components/segment-input";
import { UserHistoryDocument } from "../../graphql/operations";

/** The joins and leaves of a user, who may be deleted, newest first. */
export function UserHistory({ id }: { id: string }) {
  const [entered, setEntered] = useState({ slug: "", from: "", to: "" });
  const [filters] = useDebouncedValue(entered, SEARCH_DELAY_MILLISECONDS);
  const pagination = usePagination(JSON.stringify(filters));
  const variables = {
    id,
    slug: filters.slug || null,
    from: filters.from || null,
    to: filters.to || null,
    after: pagination.after,
  };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: UserHistoryDocument,
    variables,
    pause: isReversed(filters),
  });
  const entries = data?.history?.nodes;
  const hasFilters = Object.values(filters).some(Boolean);
  return (
    <Section
      title="History"
      actions={<ShowAsGraphQL document={UserHistoryDocument} variables={variables} />}
    >
      <SlugInput
        label="Segment"
        placeholder="All segments"
        clearable
        value={entered.slug}
        onChange={(slug) => setEntered({ ...entered, slug })}
      />
      <SimpleGrid cols={{ base: 1, xs: 2, lg: 1 }} spacing="sm">
        <DateRangeInputs
          value={entered}
          onChange={(range) => setEntered({ ...entered, ...range })}
        />
      </SimpleGrid>
      <ErrorAlert error={error} onRetry={refresh} />
      {!entries && fetching && <Skeleton h={240} />}
      {entries?.length === 0 && (
        <Text c="dimmed">
          {hasFilters ? "No joins and leaves match." : "The user has never joined a segment."}
        </Text>
      )}
      {entries && entries.length > 0 && <HistoryTimeline entries={entries} />}
      <PageButtons pagination={pagination} pageInfo={data?.history?.pageInfo} />
    </Section>
  );
}
