import { Radio, Stack } from "@mantine/core";
import type { UseFormReturnType } from "@mantine/form";

import { useSession } from "../../../app/session";
import { MembershipEndInputs } from "../../../components/membership-end-inputs";
import type { ImportValues } from "./values";

/** The fields that say what the import does with the listed users. */
export function ModeFields({ form }: { form: UseFormReturnType<ImportValues> }) {
  const { hasRole } = useSession();
  return (
    <Stack>
      <Radio.Group label="What happens with the users" {...form.getInputProps("mode")}>
        <Stack gap="xs" mt="xs">
          <Radio value="ADD" label="Add them to the segment" />
          <Radio value="REMOVE" label="Remove them from the segment" />
          {hasRole("ADMIN") && (
            <Radio
              value="REPLACE"
              label="Replace the members by this list"
              description="Members who are not in the list leave, except members of the rollout."
            />
          )}
        </Stack>
      </Radio.Group>
      {form.getValues().mode !== "REMOVE" && <MembershipEndInputs form={form} />}
    </Stack>
  );
}
