// Inputs for slugs. The server searches the segments, because there can be many.

import {
  Autocomplete,
  type AutocompleteProps,
  MultiSelect,
  type MultiSelectProps,
  Text,
} from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";
import { useQuery } from "urql";

import { SegmentOptionsDocument } from "../graphql/operations";
import { SEARCH_DELAY_MILLISECONDS } from "./search-delay";

// The list itself scrolls: the element around Mantine's own scroll area cannot have the focus.
const LIST = {
  withScrollArea: false,
  styles: { options: { maxHeight: 220, overflowY: "auto" } },
} as const;

/** The server accepts a longer text in no search. */
const MAX_SEARCH_CHARACTERS = 255;

function useSegmentOptions(search: string, paused = false) {
  const [debounced] = useDebouncedValue(
    search.slice(0, MAX_SEARCH_CHARACTERS),
    SEARCH_DELAY_MILLISECONDS,
  );
  const [{ data, error, fetching }] = useQuery({
    query: SegmentOptionsDocument,
    variables: { search: debounced },
    pause: paused,
  });
  const segments = data?.segments?.nodes ?? [];
  const names = new Map(segments.map(({ slug, name }) => [slug, name]));
  return {
    slugs: segments.map(({ slug }) => slug),
    loading: !paused && (fetching || debounced !== search.slice(0, MAX_SEARCH_CHARACTERS)),
    failed: !!error,
    renderOption: ({ option }: { option: { value: string } }) => (
      <div className="break">
        <Text size="sm">{option.value}</Text>
        {names.get(option.value) && (
          <Text size="xs" c="dimmed">
            {names.get(option.value)}
          </Text>
        )}
      </div>
    ),
  };
}

type SlugInputProps = Omit<AutocompleteProps, "data" | "filter" | "renderOption">;

/** One slug, which may also be one that no segment has now. */
export function SlugInput({ value = "", ...props }: SlugInputProps) {
  const [opened, setOpened] = useState(false);
  const { slugs, loading, renderOption } = useSegmentOptions(value, !opened);
  return (
    <Autocomplete
      autoComplete="off"
      {...LIST}
      {...props}
      value={value}
      data={slugs}
      filter={({ options }) => options}
      renderOption={renderOption}
      loading={loading}
      onDropdownOpen={() => setOpened(true)}
      onDropdownClose={() => setOpened(false)}
    />
  );
}

type SegmentsInputProps = Omit<
  MultiSelectProps,
  "data" | "filter" | "renderOption" | "searchable" | "searchValue" | "onSearchChange"
>;

/** Several existing segments. */
export function SegmentsInput(props: SegmentsInputProps) {
  const [search, setSearch] = useState("");
  const { slugs, loading, failed, renderOption } = useSegmentOptions(search);
  return (
    <MultiSelect
      autoComplete="off"
      {...LIST}
      {...props}
      searchable
      searchValue={search}
      onSearchChange={setSearch}
      data={slugs}
      filter={({ options }) => options}
      renderOption={renderOption}
      loading={loading}
      nothingFoundMessage={
        failed ? "The server does not respond." : loading ? "Searching" : "No segment matches."
      }
    />
  );
}
