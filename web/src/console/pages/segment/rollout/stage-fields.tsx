import { ActionIcon, Fieldset, Flex, NativeSelect, NumberInput, Tooltip } from "@mantine/core";
import type { UseFormReturnType } from "@mantine/form";
import { Trash2 } from "lucide-react";

import { DateTimeInput } from "../../../components/forms";
import type { PlanForm, StageForm } from "./plan-form";

interface Props {
    form: UseFormReturnType<PlanForm>;
    stage: StageForm;
    /** From 0. */
    position: number;
    canRemove: boolean;
}

const UNITS = ["seconds", "minutes", "hours", "days"];

/** The fields of one stage: its percent and its start. */
export function StageFields({ form, stage, position, canRemove }: Props) {
    const starts = [
        ...(position === 0 ? [{ value: "NOW", label: "now" }] : []),
        { value: "AFTER", label: position === 0 ? "after" : `after stage ${position} by` },
        { value: "AT", label: "at a time" },
    ];
    return (
        <Fieldset legend={`Stage ${position + 1}`} p="sm">
            <Flex gap="sm" align="flex-start" wrap="wrap">
                <NumberInput
                    label="Percent"
                    suffix="%"
                    decimalScale={3}
                    flex="1 1 110px"
                    withAsterisk
                    {...form.getInputProps(`stages.${position}.percent`)}
                />
                <NativeSelect
                    label="Start"
                    data={starts}
                    flex="1 1 150px"
                    {...form.getInputProps(`stages.${position}.start`)}
                />
                {stage.start === "AFTER" && (
                    <>
                        <NumberInput
                            label="Delay"
                            flex="1 1 90px"
                            min={0}
                            {...form.getInputProps(`stages.${position}.after`)}
                        />
                        <NativeSelect
                            label="Unit"
                            data={UNITS}
                            flex="1 1 110px"
                            {...form.getInputProps(`stages.${position}.unit`)}
                        />
                    </>
                )}
                {stage.start === "AT" && (
                    <DateTimeInput
                        label="Time"
                        flex="1 1 210px"
                        {...form.getInputProps(`stages.${position}.startsAt`)}
                        value={stage.startsAt}
                    />
                )}
                {canRemove && (
                    <Tooltip label="Remove the stage">
                        <ActionIcon
                            variant="subtle"
                            color="gray"
                            size={36}
                            mt={25}
                            ml="auto"
                            aria-label={`Remove stage ${position + 1}`}
                            onClick={() => form.removeListItem("stages", position)}
                        >
                            <Trash2 size={16} aria-hidden />
                        </ActionIcon>
                    </Tooltip>
                )}
            </Flex>
        </Fieldset>
    );
}
