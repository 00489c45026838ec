import { Group, Input, NumberInput, SegmentedControl, Select, Stack } from "@mantine/core";
import type { GetInputPropsReturnType } from "@mantine/form";

import { DateTimeInput } from "./date-time-input";
import { UNITS } from "./duration";
import type { MembershipEnd } from "./membership-end";

const KINDS = [
    { value: "never", label: "Never" },
    { value: "after", label: "After a duration" },
    { value: "at", label: "At a fixed time" },
];

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
                        data={UNITS}
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
