import { List, Modal, Skeleton, Text, TextInput } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useMutation, useQuery } from "urql";
import { useLocation } from "wouter";

import { Confirmation } from "../../../components/confirm-dialog";
import { useSubmission } from "../../../components/use-submission";
import { formatNumber } from "../../../format";
import { DeleteSegmentDocument, SegmentMemberCountDocument } from "../../../graphql/operations";

interface Props {
  slug: string;
  opened: boolean;
  onClose: () => void;
}

/** The dialog that confirms the deletion of a segment. */
export function DeleteSegment({ slug, opened, onClose }: Props) {
  return (
    <Modal opened={opened} onClose={onClose} title="Delete the segment?" size="lg">
      <Content slug={slug} onClose={onClose} />
    </Modal>
  );
}

function Content({ slug, onClose }: Pick<Props, "slug" | "onClose">) {
  const [, navigate] = useLocation();
  const [, deleteSegment] = useMutation(DeleteSegmentDocument);
  const [result] = useQuery({ query: SegmentMemberCountDocument, variables: { slug } });
  const [entered, setEntered] = useState("");
  const { failures, submitting, submit } = useSubmission(null);

  const onConfirm = async () => {
    const payload = await submit(
      () => deleteSegment({ input: { slug } }),
      (data) => data.deleteSegment,
    );
    if (payload) {
      notifications.show({ message: `The segment ${slug} is deleted.` });
      navigate("/segments");
    }
  };

  const count = result.data?.segment?.memberCount;
  return (
    <Confirmation
      confirmLabel="Delete the segment"
      disabled={entered !== slug}
      submitting={submitting}
      errors={failures}
      onConfirm={() => void onConfirm()}
      onClose={onClose}
    >
      <List size="sm" spacing="xs">
        <List.Item>
          {count == null ? (
            result.error ? (
              "All memberships end at once."
            ) : (
              <Skeleton component="span" h={14} w={200} display="inline-block" />
            )
          ) : (
            <b>{describeEnds(count)}</b>
          )}
        </List.Item>
        <List.Item>
          The segment cannot be restored. If it has a rollout, the rollout ends.
        </List.Item>
        <List.Item>Its history stays. Another segment can get the same slug.</List.Item>
      </List>
      <TextInput
        label={
          <>
            Type{" "}
            <Text span inherit fw={700} className="break">
              {slug}
            </Text>{" "}
            to confirm
          </>
        }
        autoComplete="off"
        spellCheck={false}
        data-autofocus
        value={entered}
        onChange={(event) => setEntered(event.currentTarget.value)}
      />
    </Confirmation>
  );
}

function describeEnds(count: number): string {
  if (count === 0) {
    return "No membership ends: the segment is empty.";
  }
  return count === 1
    ? "1 membership ends at once."
    : `${formatNumber(count)} memberships end at once.`;
}
