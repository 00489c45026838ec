import { Button, Group, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { notifications } from "@mantine/notifications";
import { UserMinus } from "lucide-react";
import { useMutation } from "urql";

import { ConfirmDialog } from "../../../components/confirm-dialog";
import { EXCLUSION } from "../../../components/exclusion";
import { describeOutcome } from "../../../components/outcomes";
import { useSubmission } from "../../../components/use-submission";
import { formatNumber } from "../../../format";
import { UpdateSegmentMembersDocument } from "../../../graphql/operations";

interface Props {
  slug: string;
  /** The ids of the selected users. */
  users: readonly string[];
  onRemoved: () => void;
}

/** The button that removes the selected members, with its confirmation. */
export function RemoveMembers({ slug, users, onRemoved }: Props) {
  const [opened, { open, close }] = useDisclosure();
  const [, updateMembers] = useMutation(UpdateSegmentMembersDocument);
  const { failures, submitting, submit } = useSubmission(null);

  const remove = async () => {
    const payload = await submit(
      () => updateMembers({ input: { slug, remove: [...users] } }),
      (data) => data.updateSegmentMembers,
    );
    if (payload) {
      notifications.show({ message: payload.counts.map(describeOutcome).join(" ") });
      close();
      onRemoved();
    }
  };

  return (
    <>
      <Group gap="sm">
        <Button
          size="xs"
          variant="light"
          color="red"
          leftSection={<UserMinus size={16} aria-hidden />}
          disabled={users.length === 0}
          onClick={open}
        >
          Remove
        </Button>
        <Text size="sm" c="dimmed" role="status">
          {users.length === 0 ? "Select members to remove them." : `${users.length} selected`}
        </Text>
      </Group>
      <ConfirmDialog
        opened={opened}
        title={users.length === 1 ? "Remove the member?" : "Remove the members?"}
        confirmLabel={users.length === 1 ? "Remove the member" : "Remove the members"}
        submitting={submitting}
        errors={failures}
        onConfirm={() => void remove()}
        onClose={close}
      >
        <Text>
          {users.length === 1
            ? `User ${users[0]} leaves the segment.`
            : `${formatNumber(users.length)} users leave the segment.`}{" "}
          {EXCLUSION}
        </Text>
      </ConfirmDialog>
    </>
  );
}
