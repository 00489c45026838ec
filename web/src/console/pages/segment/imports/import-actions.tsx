import { Button, Group, Stack, Text } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import type { OperationContext } from "@urql/core";
import { useEffect, useState } from "react";
import { useMutation } from "urql";
import { useLocation } from "wouter";

import { useSession } from "../../../app/session";
import { ConfirmDialog } from "../../../components/confirm-dialog";
import { FormErrors } from "../../../components/form-errors";
import { useSubmission } from "../../../components/use-submission";
import {
  ApplyImportDocument,
  CancelImportDocument,
  StartImportDocument,
} from "../../../graphql/operations";
import { hasForm, reuseForm } from "./drafts";
import type { ImportRecord } from "./import-detail";
import { describeChanges, FINISHED } from "./import-texts";
import { importPath } from "./paths";

interface Props {
  slug: string;
  record: ImportRecord;
  refresh: (options: Partial<OperationContext>) => void;
}

/** The buttons that apply, start, cancel or repeat an import. */
export function ImportActions({ slug, record, refresh }: Props) {
  const { id, status, mode } = record;
  const { hasRole } = useSession();
  const [, navigate] = useLocation();
  const { failures, submitting, submit, clearFailures } = useSubmission(null);
  // A failure says nothing about the next status.
  useEffect(clearFailures, [clearFailures, status]);
  const [dialog, setDialog] = useState<"apply" | "cancel">();
  const close = () => setDialog(undefined);
  const [, apply] = useMutation(ApplyImportDocument);
  const [, start] = useMutation(StartImportDocument);
  const [, cancel] = useMutation(CancelImportDocument);
  if (!hasRole("EDITOR")) {
    return null;
  }
  const mayApply = mode !== "REPLACE" || hasRole("ADMIN");
  const isStopped = status === "VALIDATED" || status === "HELD" || FINISHED.includes(status);
  const asksForRemovals = status === "HELD" && !!record.removals;
  const refreshNow = () => refresh({ requestPolicy: "network-only" });

  const runApply = async () => {
    // The server asks for the number only if the forecast removes too many members.
    const allowRemovals = record.failure ? (record.removals ?? 0) : undefined;
    const payload = await submit(
      () => apply({ id, allowRemovals }),
      (data) => data.applyImport,
    );
    if (payload?.import?.status === "APPLYING") {
      notifications.show({ color: "teal", message: "The import is being applied." });
    }
    if (payload) {
      close();
    }
    refreshNow();
  };
  const runStart = async () => {
    await submit(
      () => start({ id }),
      (data) => data.startImport,
    );
    refreshNow();
  };
  const runCancel = async () => {
    if (
      await submit(
        () => cancel({ id }),
        (data) => data.cancelImport,
      )
    ) {
      notifications.show({ color: "teal", message: "The import is cancelled." });
      close();
    }
    refreshNow();
  };

  const repeat = (dryRun: boolean) => {
    reuseForm(slug, id, { dryRun });
    navigate(importPath(slug, "new"));
  };

  return (
    <Stack>
      {!dialog && <FormErrors messages={failures} />}
      <Group gap="xs">
        {(status === "VALIDATED" || status === "HELD") && mayApply && (
          <Button onClick={() => setDialog("apply")}>
            {asksForRemovals ? "Confirm the removals" : "Apply"}
          </Button>
        )}
        {status === "AWAITING_UPLOAD" && mayApply && (
          <Button variant="default" onClick={() => void runStart()} loading={submitting}>
            The file is uploaded: start the import
          </Button>
        )}
        {!FINISHED.includes(status) && (
          <Button variant="default" onClick={() => setDialog("cancel")}>
            Cancel the import
          </Button>
        )}
        {isStopped && hasForm(id) && (
          <Button variant="default" onClick={() => repeat(true)}>
            Import again
          </Button>
        )}
      </Group>
      {(status === "VALIDATED" || status === "HELD") && !mayApply && (
        <Text size="sm">Only an administrator can apply an import that replaces all members.</Text>
      )}
      <ConfirmDialog
        opened={dialog === "apply"}
        title={`Apply the import to ${record.segment.slug}?`}
        confirmLabel="Apply the import"
        isDestructive={!!record.removals}
        submitting={submitting}
        errors={failures}
        onConfirm={() => void runApply()}
        onClose={close}
      >
        <Text className="break">
          Segment {record.segment.slug}: {describeChanges(record)}
        </Text>
      </ConfirmDialog>
      <ConfirmDialog
        opened={dialog === "cancel"}
        title={`Cancel the import to ${record.segment.slug}?`}
        confirmLabel="Cancel the import"
        cancelLabel="Keep the import"
        submitting={submitting}
        errors={failures}
        onConfirm={() => void runCancel()}
        onClose={close}
      >
        <Text>
          {status === "APPLYING"
            ? "The changes that are already made stay. The other rows are not applied."
            : "Nothing is changed. The import cannot be applied afterwards."}
        </Text>
      </ConfirmDialog>
    </Stack>
  );
}
