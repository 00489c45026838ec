import { Group, Input, NumberInput, SegmentedControl, Select, Stack } from "@mantine/core";
import type { GetInputPropsReturnType } from "@mantine/form";

import { DateTimeInput } from "./date-time-input";
import { type End, UNITS } from "./duration";

const KINDS = [
    { value: "never", label: "Never" },
    { value: "after", label: "After a duration" },
    { value: "at", label: "At a fixed time" },
];

/** A form whose values include those of an end. */
interface EndForm {
    getValues: () => End;
    getInputProps(field: keyof End): GetInputPropsReturnType;
}

/** When the memberships end. */
export function EndInputs({ form }: { form: EndForm }) {
    const { kind, expiresAt } = form.getValues();
    return (
        <Stack gap="xs">
            <Input.Wrapper label="Memberships end" labelElement="div">
                <SegmentedControl
                    aria-label="Memberships end"
                    fullWidth
                    data={KINDS}
                    {...form.getInputProps("kind")}
                />
            </Input.Wrapper>
            {kind === "after" && (
                <Group align="flex-start" grow>
                    <NumberInput
                        label="Duration"
                        min={0}
                        decimalScale={3}
                        {...form.getInputProps("amount")}
                    />
                    <Select
                        label="Unit"
                        data={Object.keys(UNITS)}
                        allowDeselect={false}
                        {...form.getInputProps("unit")}
                    />
                </Group>
            )}
            {kind === "at" && (
                <DateTimeInput
                    label="Time"
                    {...form.getInputProps("expiresAt")}
                    value={expiresAt}
                />
            )}
        </Stack>
    );
}
