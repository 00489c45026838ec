import { Button, Group, Modal, Stack } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { FormErrors } from "../../components/form-errors";
import {
  END_FIELDS,
  INITIAL_END,
  type MembershipEnd,
  toMembershipEndInput,
  validateEnd,
} from "../../components/membership-end";
import { MembershipEndInputs } from "../../components/membership-end-inputs";
import { OnExistingInput } from "../../components/on-existing-input";
import { SegmentsInput } from "../../components/segment-input";
import { useSubmission } from "../../components/use-submission";
import { formatNumber } from "../../format";
import { type OnExisting, UpdateUserSegmentsDocument } from "../../graphql/operations";

/** The server accepts no more slugs in one mutation. */
const MAX_SEGMENTS = 100;

const FIELDS: Record<string, string> = END_FIELDS;

interface AddValues extends MembershipEnd {
  add: string[];
  onExisting: OnExisting;
}

interface Props {
  userId: string;
  opened: boolean;
  onClose: () => void;
}

export function AddToSegments({ userId, opened, onClose }: Props) {
  return (
    <Modal opened={opened} onClose={onClose} title={`Add user ${userId} to segments`} size="lg">
      <AddForm userId={userId} onClose={onClose} />
    </Modal>
  );
}

function AddForm({ userId, onClose }: Omit<Props, "opened">) {
  const form = useForm<AddValues>({
    mode: "controlled",
    initialValues: {
      add: [],
      ...INITIAL_END,
      onExisting: "EXTEND",
    },
    validate: (values) => ({
      add: values.add.length === 0 ? "Select at least one segment." : null,
      ...validateEnd(values),
    }),
  });
  const { failures, submitting, submit } = useSubmission(
    form,
    ([field = ""]) => FIELDS[field] ?? field,
  );
  const [, update] = useMutation(UpdateUserSegmentsDocument);

  const add = form.onSubmit(async (values) => {
    const payload = await submit(
      () =>
        update({
          input: {
            userId,
            add: values.add,
            onExisting: values.onExisting,
            ...toMembershipEndInput(values),
          },
        }),
      (data) => data.updateUserSegments,
    );
    if (payload) {
      notifications.show({
        color: "teal",
        message: describeResult(values.add.length, payload.segmentsAdded, payload.segmentsExtended),
      });
      onClose();
    }
  });

  return (
    <form onSubmit={add} noValidate>
      <Stack>
        <SegmentsInput
          label="Segments"
          placeholder="Search by slug or name"
          data-autofocus
          maxValues={MAX_SEGMENTS}
          {...form.getInputProps("add")}
        />
        <MembershipEndInputs form={form} />
        <OnExistingInput
          label="If the user is a member already"
          {...form.getInputProps("onExisting")}
        />
        <FormErrors messages={failures} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={submitting}>
            Add to segments
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function describeResult(requested: number, added: number, changed: number): string {
  const unchanged = requested - added - changed;
  const parts = [
    `The user joined ${count(added)}.`,
    changed > 0 &&
      `The end of ${changed === 1 ? "1 membership" : `${changed} memberships`} changed.`,
    unchanged > 0 && `The user was in ${count(unchanged)} already.`,
  ];
  return parts.filter(Boolean).join(" ");
}

function count(segments: number): string {
  return segments === 1 ? "1 segment" : `${formatNumber(segments)} segments`;
}
