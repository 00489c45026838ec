import { Checkbox, Modal, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { useState } from "react";
import { useMutation, useQuery } from "urql";

import { Confirmation } from "../../components/confirm-dialog";
import { useSubmission } from "../../components/use-submission";
import { formatNumber } from "../../format";
import {
  DeleteUserDocument,
  type UserHeadQuery,
  UserMembershipsDocument,
} from "../../graphql/operations";

interface Props {
  id: string;
  /** Null if the user does not exist. Then only the keys of deleted users can be erased. */
  user: UserHeadQuery["user"];
  opened: boolean;
  onClose: () => void;
}

export function DeleteUser({ opened, ...props }: Props) {
  const { id, user, onClose } = props;
  return (
    <Modal
      opened={opened}
      onClose={onClose}
      title={user ? `Delete user ${id}?` : `Erase the keys of user ${id}?`}
    >
      <Content {...props} />
    </Modal>
  );
}

function Content({ id, user, onClose }: Omit<Props, "opened">) {
  const [eraseKey, setEraseKey] = useState(!user);
  const [{ data }] = useQuery({
    query: UserMembershipsDocument,
    variables: { id },
    pause: !user,
  });
  const { failures, submitting, submit } = useSubmission(null);
  const [, deleteUser] = useMutation(DeleteUserDocument);
  const segments = data?.user?.memberships.length;

  const confirm = async () => {
    const payload = await submit(
      () => deleteUser({ input: { id, eraseKey } }),
      (result) => result.deleteUser,
    );
    if (payload) {
      notifications.show({
        color: "teal",
        message: user ? `User ${id} is deleted.` : `The keys of user ${id} are erased.`,
      });
      onClose();
    }
  };

  return (
    <Confirmation
      confirmLabel={user ? "Delete the user" : "Erase the keys"}
      submitting={submitting}
      errors={failures}
      onConfirm={() => void confirm()}
      onClose={onClose}
    >
      {user && (
        <>
          <Text>
            {segments === undefined
              ? "The user leaves all segments"
              : `The user leaves ${segments === 1 ? "1 segment" : `${formatNumber(segments)} segments`}`}{" "}
            and is deleted. The history stays.
          </Text>
          <Text>
            If a user with this id is created again, it is a new user with the old history.
          </Text>
          <Checkbox
            label="Erase the keys, too"
            description="For example, if the person requests it."
            checked={eraseKey}
            onChange={(event) => setEraseKey(event.currentTarget.checked)}
          />
        </>
      )}
      {eraseKey && (
        <Text>
          Every key that a user with this id ever had is erased from the history. Reports with these
          keys are created again. Result files of imports and exports that may contain them are no
          longer available. This cannot be undone.
        </Text>
      )}
    </Confirmation>
  );
}
