import { Radio, type RadioGroupProps, Stack } from "@mantine/core";

/** What happens to a user who is a member already: a value of `OnExisting`. */
export function OnExistingInput(props: Omit<RadioGroupProps, "children">) {
  return (
    <Radio.Group {...props}>
      <Stack gap="xs" mt="xs">
        <Radio value="EXTEND" label="Keep the later end" />
        <Radio value="REPLACE" label="Set the new end" />
        <Radio value="KEEP" label="Change nothing" />
      </Stack>
    </Radio.Group>
  );
}
