import { Group, NativeSelect, NumberInput, Radio, Stack } from "@mantine/core";
import type { UseFormReturnType } from "@mantine/form";

import { useSession } from "../../../app/session";
import { DateTimeInput } from "../../../components/forms";
import { type ImportValues, UNIT_SECONDS } from "./values";

/** The fields that say what the import does with the listed users. */
export function ModeFields({ form }: { form: UseFormReturnType<ImportValues> }) {
    const { may } = useSession();
    const values = form.getValues();
    return (
        <Stack>
            <Radio.Group label="What happens with the users" {...form.getInputProps("mode")}>
                <Stack gap="xs" mt="xs">
                    <Radio value="ADD" label="Add them to the segment" />
                    <Radio value="REMOVE" label="Remove them from the segment" />
                    {may("ADMIN") && (
                        <Radio
                            value="REPLACE"
                            label="Replace the members by this list"
                            description="Members who are not in the list leave, except members of the rollout."
                        />
                    )}
                </Stack>
            </Radio.Group>
            {values.mode !== "REMOVE" && (
                <Radio.Group label="The memberships end" {...form.getInputProps("ending")}>
                    <Stack gap="xs" mt="xs">
                        <Radio value="none" label="Never" />
                        <Radio value="after" label="Some time after each user joins" />
                        <Radio value="at" label="At a set time" />
                    </Stack>
                </Radio.Group>
            )}
            {values.mode !== "REMOVE" && values.ending === "after" && (
                <Group align="flex-start" grow maw={480}>
                    <NumberInput
                        label="Duration"
                        min={0}
                        decimalScale={2}
                        {...form.getInputProps("duration")}
                    />
                    <NativeSelect
                        label="Unit"
                        data={Object.keys(UNIT_SECONDS)}
                        {...form.getInputProps("unit")}
                    />
                </Group>
            )}
            {values.mode !== "REMOVE" && values.ending === "at" && (
                <DateTimeInput
                    label="End"
                    maw={360}
                    {...form.getInputProps("expiresAt")}
                    value={values.expiresAt}
                />
            )}
        </Stack>
    );
}
