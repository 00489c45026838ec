import { Checkbox, NativeSelect, NumberInput, Stack, TextInput } from "@mantine/core";
import type { UseFormReturnType } from "@mantine/form";

import { EXCLUSION } from "../../../components/exclusion";
import { OnExistingInput } from "../../../components/on-existing-input";
import type { ImportValues } from "./values";

interface Props {
  form: UseFormReturnType<ImportValues>;
}

/** The names of the fields below, which are collapsed unless they have errors. */
export const OPTION_FIELDS = [
  "onExisting",
  "onExcluded",
  "onUnknownUser",
  "exclude",
  "maxRejected",
  "maxRemovedPercent",
  "allowEmpty",
];

export function OptionFields({ form }: Props) {
  const { mode, source } = form.getValues();
  return (
    <Stack>
      {mode !== "REMOVE" && (
        <>
          <OnExistingInput
            label="If a user is a member already"
            {...form.getInputProps("onExisting")}
          />
          <NativeSelect
            label="If the rollout excludes a user"
            description="A rollout excludes users who were removed by hand."
            data={[
              { value: "SKIP", label: "Leave the user out" },
              { value: "ADMIT", label: "Add the user, and end the exclusion" },
            ]}
            {...form.getInputProps("onExcluded")}
          />
          <NativeSelect
            label="If a user does not exist"
            data={[
              { value: "STORE", label: "Create and add the user" },
              { value: "SKIP", label: "Leave the user out" },
            ]}
            {...form.getInputProps("onUnknownUser")}
          />
        </>
      )}
      {mode === "REMOVE" && (
        <Checkbox
          label="Exclude these users from the segment's rollout"
          description={EXCLUSION}
          {...form.getInputProps("exclude", { type: "checkbox" })}
        />
      )}
      {source === "file" && (
        <NumberInput
          label="Rejected rows to accept"
          description="If more rows are rejected, the file is rejected and nothing changes."
          min={0}
          allowDecimal={false}
          thousandSeparator=","
          {...form.getInputProps("maxRejected")}
        />
      )}
      {mode !== "ADD" && (
        <NumberInput
          label="Members to remove without a confirmation"
          description="If more members would leave, the import waits for your confirmation. This check applies to segments with at least 100 members."
          min={0}
          max={100}
          suffix="%"
          {...form.getInputProps("maxRemovedPercent")}
        />
      )}
      {mode === "REPLACE" && (
        <Checkbox
          label="Accept a list without users"
          description="Otherwise such an import waits for your confirmation."
          {...form.getInputProps("allowEmpty", { type: "checkbox" })}
        />
      )}
    </Stack>
  );
}

/** The names of the fields below. */
export const FORMAT_FIELDS = ["column", "columnNumber", "header", "delimiter"];

export function FormatFields({ form }: Props) {
  const { identity } = form.getValues();
  return (
    <Stack>
      <TextInput
        label="Name of the column"
        description={`If both are empty, the column ${identity === "ID" ? "user_id" : "user_key"} is read, or the only one.`}
        {...form.getInputProps("column")}
      />
      <NumberInput
        label="Number of the column"
        description="From 1. Use it instead of the name."
        min={1}
        allowDecimal={false}
        {...form.getInputProps("columnNumber")}
      />
      <NativeSelect
        label="The first row"
        data={[
          { value: "AUTO", label: "Is a header if it looks like one" },
          { value: "PRESENT", label: "Is a header" },
          { value: "ABSENT", label: "Is a user" },
        ]}
        {...form.getInputProps("header")}
      />
      <NativeSelect
        label="Delimiter between the columns"
        data={[
          { value: "AUTO", label: "The first row decides" },
          { value: "COMMA", label: "Comma" },
          { value: "SEMICOLON", label: "Semicolon" },
          { value: "TAB", label: "Tab" },
        ]}
        {...form.getInputProps("delimiter")}
      />
    </Stack>
  );
}
