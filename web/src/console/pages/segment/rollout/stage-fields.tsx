import { ActionIcon, Fieldset, Grid, NativeSelect, NumberInput, Tooltip } from "@mantine/core";
import type { UseFormReturnType } from "@mantine/form";
import { Trash2 } from "lucide-react";

import { DateTimeInput } from "../../../components/date-time-input";
import { UNITS } from "../../../components/duration";
import type { PlanForm, StageForm } from "./plan-form";

interface Props {
  form: UseFormReturnType<PlanForm>;
  stage: StageForm;
  /** From 0. */
  position: number;
  canRemove: boolean;
}

/** The fields of one stage: its percentage and its start. */
export function StageFields({ form, stage, position, canRemove }: Props) {
  const starts = [
    ...(position === 0 ? [{ value: "NOW", label: "now" }] : []),
    { value: "AFTER", label: position === 0 ? "after a delay" : `after stage ${position}` },
    { value: "AT", label: "at a time" },
  ];
  return (
    <Fieldset legend={`Stage ${position + 1}`} p="sm" pos="relative">
      <Grid gap="sm" align="flex-start">
        <Grid.Col span={{ base: 5, sm: 3 }}>
          <NumberInput
            label="Percentage"
            suffix="%"
            decimalScale={3}
            withAsterisk
            {...form.getInputProps(`stages.${position}.percent`)}
          />
        </Grid.Col>
        <Grid.Col span={{ base: 7, sm: 3 }}>
          <NativeSelect
            label="Start"
            data={starts}
            {...form.getInputProps(`stages.${position}.start`)}
          />
        </Grid.Col>
        {stage.start === "AFTER" && (
          <>
            <Grid.Col span={{ base: 5, sm: 2 }}>
              <NumberInput label="Delay" {...form.getInputProps(`stages.${position}.after`)} />
            </Grid.Col>
            <Grid.Col span={{ base: 7, sm: 3 }}>
              <NativeSelect
                label="Unit"
                data={UNITS}
                {...form.getInputProps(`stages.${position}.unit`)}
              />
            </Grid.Col>
          </>
        )}
        {stage.start === "AT" && (
          <Grid.Col span={{ base: 12, sm: 5 }}>
            <DateTimeInput
              label="Time"
              {...form.getInputProps(`stages.${position}.startsAt`)}
              value={stage.startsAt}
            />
          </Grid.Col>
        )}
      </Grid>
      {canRemove && (
        <Tooltip label="Remove the stage">
          <ActionIcon
            variant="subtle"
            color="gray"
            pos="absolute"
            top={0}
            right={4}
            aria-label={`Remove stage ${position + 1}`}
            onClick={() => form.removeListItem("stages", position)}
          >
            <Trash2 size={16} aria-hidden />
          </ActionIcon>
        </Tooltip>
      )}
    </Fieldset>
  );
}
