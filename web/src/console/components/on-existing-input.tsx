import { Radio, type RadioGroupProps, Stack } from "@mantine/core";

/** What happens to a user who is a member already: a value of `OnExisting`. */
export function OnExistingInput(props: Omit<RadioGroupProps, "children">) {
    return (
        <Radio.Group {...props}>
            <Stack gap="xs" mt="xs">
                <Radio
                    value="EXTEND"
                    label="Extend"
                    description="The membership keeps the later of its two ends."
                />
                <Radio
                    value="REPLACE"
                    label="Replace"
                    description="The membership gets the new end, even if it is earlier."
                />
                <Radio value="KEEP" label="Keep" description="The membership does not change." />
            </Stack>
        </Radio.Group>
    );
}
