import { Modal, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { Confirmation } from "../../components/confirm-dialog";
import { EXCLUSION } from "../../components/exclusion";
import { useSubmission } from "../../components/use-submission";
import { UpdateUserSegmentsDocument } from "../../graphql/operations";

interface Props {
  userId: string;
  /** The segment to leave. The dialog is closed if there is none. */
  slug: string | undefined;
  onClose: () => void;
}

export function RemoveFromSegment({ userId, slug, onClose }: Props) {
  return (
    <Modal opened={slug !== undefined} onClose={onClose} title="Remove the user from the segment?">
      {slug !== undefined && <Content userId={userId} slug={slug} onClose={onClose} />}
    </Modal>
  );
}

function Content({ userId, slug, onClose }: Props & { slug: string }) {
  const { failures, submitting, submit } = useSubmission(null);
  const [, update] = useMutation(UpdateUserSegmentsDocument);

  const remove = async () => {
    const payload = await submit(
      () => update({ input: { userId, remove: [slug] } }),
      (data) => data.updateUserSegments,
    );
    if (payload) {
      notifications.show({
        color: "teal",
        message:
          payload.segmentsRemoved > 0
            ? `User ${userId} left ${slug}.`
            : `User ${userId} was not in ${slug} any more.`,
      });
      onClose();
    }
  };

  return (
    <Confirmation
      confirmLabel="Remove the user"
      submitting={submitting}
      errors={failures}
      onConfirm={() => void remove()}
      onClose={onClose}
    >
      <Text className="break">
        User {userId} leaves <b>{slug}</b> now.
      </Text>
      <Text>{EXCLUSION}</Text>
    </Confirmation>
  );
}
