import { Radio, SegmentedControl, Stack, Text } from "@mantine/core";
import type { UseFormReturnType } from "@mantine/form";

import { DateTimeInput } from "../../../components/date-time-input";
import { SegmentsInput } from "../../../components/segment-input";
import { FileField } from "./file-field";
import type { ImportValues } from "./values";

/** The server accepts as many slugs in all three fields together. */
const MAX_SEGMENTS = 100;

/** The fields that say where the list of users comes from. */
export function ListSourceFields({ form }: { form: UseFormReturnType<ImportValues> }) {
  return (
    <Stack>
      <SegmentedControl
        aria-label="Where the list comes from"
        data={[
          { value: "file", label: "A file" },
          { value: "segments", label: "Members of segments" },
        ]}
        {...form.getInputProps("source")}
      />
      {form.getValues().source === "file" ? (
        <>
          <FileField
            label="File"
            description="One user in each line, or a CSV file with a column for the users. At most 268 MB, uncompressed or compressed with gzip. Save a spreadsheet as CSV UTF-8."
            withAsterisk
            {...form.getInputProps("file")}
            value={form.getValues().file}
          />
          <Radio.Group label="The file holds" {...form.getInputProps("identity")}>
            <Stack gap="xs" mt="xs">
              <Radio value="ID" label="User ids, such as 1002" />
              <Radio
                value="KEY"
                label="User keys, such as ada@example.com"
                description="Each key must be spelled exactly as it is stored."
              />
            </Stack>
          </Radio.Group>
        </>
      ) : (
        <>
          <Text size="sm" c="dimmed">
            The list has the users who are in any segment of the first field, in all segments of the
            second, and in none of the third. An empty field does not restrict the list.
          </Text>
          <SegmentsInput
            clearable
            maxValues={MAX_SEGMENTS}
            label="In any of"
            {...form.getInputProps("anyOf")}
          />
          <SegmentsInput
            clearable
            maxValues={MAX_SEGMENTS}
            label="In all of"
            {...form.getInputProps("allOf")}
          />
          <SegmentsInput
            clearable
            maxValues={MAX_SEGMENTS}
            label="In none of"
            {...form.getInputProps("noneOf")}
          />
          <DateTimeInput
            label="Members at"
            description="A time in the past. If it is empty, the members of now."
            {...form.getInputProps("asOf")}
            value={form.getValues().asOf}
          />
        </>
      )}
    </Stack>
  );
}
