import {
  Anchor,
  Button,
  Group,
  List,
  Modal,
  SegmentedControl,
  Stack,
  Text,
  Textarea,
} from "@mantine/core";
import { useForm } from "@mantine/form";
import { useState } from "react";
import { useMutation } from "urql";
import { Link } from "wouter";

import { FormErrors } from "../../../components/form-errors";
import { segmentPath } from "../../../components/links";
import {
  END_FIELDS,
  INITIAL_END,
  type MembershipEnd,
  toMembershipEndInput,
  validateEnd,
} from "../../../components/membership-end";
import { MembershipEndInputs } from "../../../components/membership-end-inputs";
import { OnExistingInput } from "../../../components/on-existing-input";
import { describeOutcome, type OutcomeCount } from "../../../components/outcomes";
import { useSubmission } from "../../../components/use-submission";
import { formatNumber } from "../../../format";
import { type OnExisting, UpdateSegmentMembersDocument } from "../../../graphql/operations";
import { checkCount, MAX_USERS, parseIds, parseKeys } from "./user-list";

interface Props {
  slug: string;
  opened: boolean;
  onClose: () => void;
}

/** The dialog that adds users by hand and then shows the outcomes. */
export function AddUsers({ slug, opened, onClose }: Props) {
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title="Add users"
      size="lg"
      closeOnClickOutside={false}
    >
      <Content slug={slug} onClose={onClose} />
    </Modal>
  );
}

function Content({ slug, onClose }: Pick<Props, "slug" | "onClose">) {
  const [counts, setCounts] = useState<readonly OutcomeCount[] | null>(null);
  return counts ? (
    <Outcomes counts={counts} onMore={() => setCounts(null)} onClose={onClose} />
  ) : (
    <AddForm slug={slug} onAdded={setCounts} onClose={onClose} />
  );
}

const IDENTITIES = [
  { value: "ID", label: "Ids" },
  { value: "KEY", label: "Keys" },
];

// The fields of the form for those of the input.
const FIELDS: Record<string, string> = {
  add: "users",
  addKeys: "users",
  ...END_FIELDS,
};

interface Values extends MembershipEnd {
  identity: string;
  users: string;
  onExisting: OnExisting;
}

interface AddFormProps {
  slug: string;
  onAdded: (counts: readonly OutcomeCount[]) => void;
  onClose: () => void;
}

function AddForm({ slug, onAdded, onClose }: AddFormProps) {
  const [, updateMembers] = useMutation(UpdateSegmentMembersDocument);
  const form = useForm<Values>({
    mode: "controlled",
    initialValues: {
      identity: "ID",
      users: "",
      ...INITIAL_END,
      onExisting: "EXTEND",
    },
    validate: (values) => ({
      users: checkCount(parseUsers(values).length),
      ...validateEnd(values),
    }),
  });
  const { failures, submitting, submit } = useSubmission(
    form,
    ([field = ""]) => FIELDS[field] ?? field,
  );
  const byKey = form.values.identity === "KEY";

  const onSubmit = form.onSubmit(async (values) => {
    const users = parseUsers(values);
    const input = {
      slug,
      ...(byKey ? { addKeys: users } : { add: users }),
      onExisting: values.onExisting,
      ...toMembershipEndInput(values),
    };
    const payload = await submit(
      () => updateMembers({ input }),
      (data) => data.updateSegmentMembers,
    );
    if (payload) {
      onAdded(payload.counts);
    }
  });

  return (
    <form onSubmit={onSubmit} noValidate>
      <Stack>
        <SegmentedControl
          aria-label="What the list contains"
          data={IDENTITIES}
          {...form.getInputProps("identity")}
        />
        <Textarea
          label={byKey ? "Keys of the users" : "Ids of the users"}
          description={
            byKey
              ? "One key per line. New keys create new users."
              : "Separated by spaces, commas, semicolons or line breaks. New ids create new users."
          }
          autosize
          minRows={5}
          maxRows={12}
          spellCheck={false}
          data-autofocus
          {...form.getInputProps("users")}
        />
        <Text size="sm" c="dimmed">
          {formatNumber(parseUsers(form.values).length)} of at most {formatNumber(MAX_USERS)} users.
          For a longer list, use an{" "}
          <Anchor component={Link} href={segmentPath(slug, "imports")} inherit underline="always">
            import
          </Anchor>
          .
        </Text>
        <MembershipEndInputs form={form} />
        <OnExistingInput
          label="If a user is a member already"
          {...form.getInputProps("onExisting")}
        />
        <FormErrors messages={failures} />
        <Group justify="flex-end">
          <Button variant="default" onClick={onClose}>
            Cancel
          </Button>
          <Button type="submit" loading={submitting}>
            Add users
          </Button>
        </Group>
      </Stack>
    </form>
  );
}

function parseUsers({ identity, users }: Values): string[] {
  return identity === "KEY" ? parseKeys(users) : parseIds(users);
}

interface OutcomesProps {
  counts: readonly OutcomeCount[];
  onMore: () => void;
  onClose: () => void;
}

function Outcomes({ counts, onMore, onClose }: OutcomesProps) {
  return (
    <Stack>
      <div role="status">
        <List>
          {counts.map((count) => (
            <List.Item key={count.outcome}>{describeOutcome(count)}</List.Item>
          ))}
        </List>
      </div>
      <Group justify="flex-end">
        <Button variant="default" onClick={onMore}>
          Add more
        </Button>
        <Button onClick={onClose} data-autofocus>
          Close
        </Button>
      </Group>
    </Stack>
  );
}
