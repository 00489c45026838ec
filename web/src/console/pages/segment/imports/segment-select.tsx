import { MultiSelect, type MultiSelectProps } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { useState } from "react";
import { useQuery } from "urql";

import { SourceSegmentsDocument } from "../../../graphql/operations";

/** Segments, which the server searches by slug and name. */
export function SegmentSelect(props: MultiSelectProps) {
    const [search, setSearch] = useState("");
    const [debounced] = useDebouncedValue(search.trim().slice(0, 255), 200);
    const [{ data }] = useQuery({
        query: SourceSegmentsDocument,
        variables: { search: debounced },
    });
    const found = data?.segments?.nodes ?? [];
    const names = new Map(found.map(({ slug, name }) => [slug, name]));
    const slugs = new Set([...(props.value ?? []), ...names.keys()]);
    return (
        <MultiSelect
            {...props}
            searchable
            clearable
            searchValue={search}
            onSearchChange={setSearch}
            // The server has filtered the segments.
            filter={({ options }) => options}
            data={[...slugs].map((slug) => {
                const name = names.get(slug);
                return { value: slug, label: name ? `${slug} (${name})` : slug };
            })}
            nothingFoundMessage="No segment has this text in its slug or name."
            maxValues={100}
            hidePickedOptions
        />
    );
}
