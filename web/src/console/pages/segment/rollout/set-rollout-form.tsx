import { Button, Group, NumberInput, SegmentedControl, Stack, Switch, Text } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { ArrowLeft, Plus } from "lucide-react";
import { useRef, useState } from "react";
import { useMutation } from "urql";

import { DateTimeInput } from "../../../components/date-time-input";
import { FormErrors } from "../../../components/form-errors";
import { useSubmission } from "../../../components/use-submission";
import {
  SetRolloutDocument,
  type SetRolloutInput,
  type SetRolloutMutation,
} from "../../../graphql/operations";
import {
  MAX_STAGES,
  newStage,
  type PlanForm,
  toPlanForm,
  toField,
  toRolloutInput,
  validatePlan,
} from "./plan-form";
import { PlanReview } from "./plan-review";
import type { ChangeCounts, Rollout } from "./rollout-state";
import { StageFields } from "./stage-fields";

const CONFLICT =
  "The segment has changed since you opened this dialog. Close the dialog, check the segment and try again.";

interface Props {
  slug: string;
  version: number;
  rollout: Rollout | null;
  onDone: () => void;
}

type PlanError = NonNullable<SetRolloutMutation["setRollout"]>["errors"][number];

function explainConflict(error: PlanError): PlanError {
  return error.code === "VERSION_CONFLICT" ? { ...error, message: CONFLICT } : error;
}

/** The form of a rollout's plan, and then the numbers of users who join and leave to confirm. */
export function SetRolloutForm({ slug, version, rollout, onDone }: Props) {
  const form = useForm<PlanForm>({
    mode: "controlled",
    initialValues: toPlanForm(rollout, Date.now()),
    validate: validatePlan,
  });
  const { failures, submitting, submit } = useSubmission(form, toField);
  const [, setRollout] = useMutation(SetRolloutDocument);
  const [counts, setCounts] = useState<ChangeCounts>();
  const [wasReviewed, setWasReviewed] = useState(false);
  const { kind, stages } = form.values;

  const send = (dryRun: boolean) => {
    const input: SetRolloutInput = {
      slug,
      rollout: toRolloutInput(form.getValues()),
      expectedVersion: version,
      dryRun,
    };
    return submit(
      () => setRollout({ input }),
      ({ setRollout: payload }) =>
        payload && { ...payload, errors: payload.errors.map(explainConflict) },
    );
  };

  const review = async () => {
    const payload = await send(true);
    if (payload) {
      setCounts({ joining: payload.joining, leaving: payload.leaving });
      setWasReviewed(true);
    }
  };

  const isDone = useRef(false);
  const confirm = async () => {
    if (isDone.current) {
      return; // The second click of a double click, while the dialog disappears.
    }
    if (await send(false)) {
      isDone.current = true;
      notifications.show({ color: "teal", message: "The rollout is set." });
      onDone();
    } else {
      setCounts(undefined); // The form shows the errors.
    }
  };

  if (counts) {
    return (
      <Stack>
        <PlanReview values={form.values} counts={counts} isReplaced={rollout !== null} />
        <Group justify="flex-end">
          <Button
            variant="default"
            leftSection={<ArrowLeft size={16} aria-hidden />}
            onClick={() => setCounts(undefined)}
          >
            Back
          </Button>
          <Button loading={submitting} onClick={confirm}>
            Set the rollout
          </Button>
        </Group>
      </Stack>
    );
  }
  return (
    <form
      noValidate
      onSubmit={form.onSubmit(review, (errors) =>
        form.getInputNode(Object.keys(errors)[0] ?? "")?.focus(),
      )}
    >
      <Stack>
        <SegmentedControl
          aria-label="Kind of plan"
          data={[
            { value: "percent", label: "One percentage, now" },
            { value: "stages", label: "Stages" },
          ]}
          {...form.getInputProps("kind")}
        />
        {kind === "percent" ? (
          <NumberInput
            label="Percentage of all users"
            description="0 to 100, with up to three decimals"
            suffix="%"
            decimalScale={3}
            maw={280}
            withAsterisk
            data-autofocus
            {...form.getInputProps("percent")}
          />
        ) : (
          <>
            <Text size="sm" c="dimmed">
              In each stage, this percentage of all users is in the segment. If the percentage
              falls, members that the rollout added leave.
            </Text>
            {stages.map((stage, position) => (
              <StageFields
                // The form has all values, so a field keeps nothing of its own.
                key={position}
                form={form}
                stage={stage}
                position={position}
                canRemove={stages.length > 1}
              />
            ))}
            <Button
              variant="default"
              leftSection={<Plus size={16} aria-hidden />}
              disabled={stages.length >= MAX_STAGES}
              onClick={() => form.insertListItem("stages", newStage())}
              style={{ alignSelf: "flex-start" }}
            >
              Add a stage
            </Button>
          </>
        )}
        <Switch
          label="New users join"
          description="Users who are created later join at once, at the percentage of the current stage."
          {...form.getInputProps("enrollNewUsers", { type: "checkbox" })}
        />
        <DateTimeInput
          label="Memberships end"
          description="Optional. It must be after the last stage starts."
          maw={280}
          {...form.getInputProps("expiresAt")}
          value={form.values.expiresAt}
        />
        <FormErrors messages={failures} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onDone}>
            Cancel
          </Button>
          <Button type="submit" loading={submitting} autoFocus={wasReviewed}>
            Review
          </Button>
        </Group>
      </Stack>
    </form>
  );
}
