import { Group, NumberInput, Radio, Select, Stack } from "@mantine/core";
import type { GetInputPropsReturnType } from "@mantine/form";

import { DateTimeInput } from "./date-time-input";
import { UNITS } from "./duration";
import type { MembershipEnd } from "./membership-end";

/** A form whose values include the end of memberships. */
interface MembershipEndForm {
  getValues: () => MembershipEnd;
  getInputProps(field: keyof MembershipEnd): GetInputPropsReturnType;
}

/** When the memberships end. */
export function MembershipEndInputs({ form }: { form: MembershipEndForm }) {
  const { kind, expiresAt } = form.getValues();
  return (
    <Stack gap="xs">
      <Radio.Group label="Memberships end" {...form.getInputProps("kind")}>
        <Stack gap="xs" mt="xs">
          <Radio value="never" label="Never" />
          <Radio value="after" label="After a duration" />
          <Radio value="at" label="At a fixed time" />
        </Stack>
      </Radio.Group>
      {kind === "after" && (
        <Group align="flex-start" grow>
          <NumberInput
            label="Duration"
            min={0}
            decimalScale={3}
            {...form.getInputProps("amount")}
          />
          <Select label="Unit" data={UNITS} allowDeselect={false} {...form.getInputProps("unit")} />
        </Group>
      )}
      {kind === "at" && (
        <DateTimeInput label="Time" {...form.getInputProps("expiresAt")} value={expiresAt} />
      )}
    </Stack>
  );
}
