import { Button, Group, Loader, Switch, TextInput, VisuallyHidden } from "@mantine/core";
import { useDebouncedCallback, useDisclosure } from "@mantine/hooks";
import { Plus, Search } from "lucide-react";
import { useState } from "react";

import { useSession } from "../../app/session";
import { ErrorAlert } from "../../components/errors";
import { useQueryKeepingData } from "../../components/last-data";
import { Page, ShowAsGraphQL } from "../../components/page";
import { PageButtons } from "../../components/pagination";
import { SEARCH_DELAY_MILLISECONDS } from "../../components/search-delay";
import { SegmentMemberCountsDocument, SegmentsDocument } from "../../graphql/operations";
import { CreateSegment } from "./create-segment";
import { EmptyList } from "./empty-list";
import { useListState } from "./list-state";
import { SegmentsTable } from "./segments-table";

const PAGE_SIZE = 25;

export function SegmentsPage() {
  const { hasRole } = useSession();
  const [creating, { open, close }] = useDisclosure();
  const { search, includeDeleted, pagination, filter } = useListState();
  const variables = { first: PAGE_SIZE, after: pagination.after, search, includeDeleted };
  const [{ data, error, fetching }, refresh] = useQueryKeepingData({
    query: SegmentsDocument,
    variables,
  });
  const [counts, refreshCounts] = useQueryKeepingData({
    query: SegmentMemberCountsDocument,
    variables,
  });

  const segments = data?.segments?.nodes;
  const isEmpty = segments?.length === 0 && !fetching && !error;
  const createButton = hasRole("EDITOR") && (
    <Button leftSection={<Plus size={18} aria-hidden />} onClick={open}>
      Create segment
    </Button>
  );
  return (
    <Page title="Segments" description="Named sets of users." actions={createButton}>
      <Group justify="space-between">
        <SearchInput
          value={search}
          searching={fetching && !!data}
          onSearch={(text) => filter({ search: text })}
        />
        <Switch
          label="Show deleted"
          checked={includeDeleted}
          onChange={(event) => filter({ includeDeleted: event.currentTarget.checked })}
        />
      </Group>
      <ErrorAlert error={error} onRetry={refresh} />
      {!error && <ErrorAlert error={counts.error} onRetry={refreshCounts} />}
      {!segments && fetching && <Loader aria-label="Loading the segments" />}
      {segments && segments.length > 0 && (
        <SegmentsTable
          segments={segments}
          counts={counts.data?.segments?.nodes}
          countsFailed={!!counts.error}
        />
      )}
      {isEmpty && (
        <EmptyList
          search={search}
          createButton={createButton}
          onClear={() => filter({ search: "" })}
        />
      )}
      <VisuallyHidden role="status">
        {segments && !fetching && `Segments on this page: ${segments.length}.`}
      </VisuallyHidden>
      <Group justify="space-between">
        <ShowAsGraphQL document={SegmentsDocument} variables={variables} />
        <PageButtons pagination={pagination} pageInfo={data?.segments?.pageInfo} />
      </Group>
      <CreateSegment opened={creating} onClose={close} />
    </Page>
  );
}

interface SearchInputProps {
  value: string;
  searching: boolean;
  onSearch: (text: string) => void;
}

/** Search when the person pauses typing. */
function SearchInput({ value, searching, onSearch }: SearchInputProps) {
  // The text that is not searched yet.
  const [draft, setDraft] = useState<string | null>(null);
  const search = useDebouncedCallback((text: string) => {
    onSearch(text);
    setDraft(null);
  }, SEARCH_DELAY_MILLISECONDS);
  return (
    <TextInput
      type="search"
      aria-label="Search segments"
      placeholder="Search slugs and names"
      maxLength={255}
      flex="1 1 240px"
      maw={420}
      leftSection={<Search size={16} aria-hidden />}
      rightSection={searching && <Loader size={16} aria-hidden />}
      value={draft ?? value}
      onChange={(event) => {
        setDraft(event.currentTarget.value);
        search(event.currentTarget.value);
      }}
    />
  );
}
