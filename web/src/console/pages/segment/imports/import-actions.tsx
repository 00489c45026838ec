import { Button, Group, Stack, Text } from "@mantine/core";
import { modals } from "@mantine/modals";
import { notifications } from "@mantine/notifications";
import type { OperationContext } from "@urql/core";
import { useMutation } from "urql";
import { useLocation } from "wouter";

import { useSession } from "../../../app/session";
import { Failures, useSubmission } from "../../../components/forms";
import {
    ApplyImportDocument,
    CancelImportDocument,
    StartImportDocument,
} from "../../../graphql/operations";
import { hasForm, reuseForm } from "./drafts";
import type { ImportRecord } from "./import-detail";
import { importPath } from "./paths";
import { changesOf, FINISHED } from "./texts";

interface Props {
    slug: string;
    record: ImportRecord;
    refresh: (options: Partial<OperationContext>) => void;
}

/** The buttons that apply, start, cancel or repeat an import. */
export function ImportActions({ slug, record, refresh }: Props) {
    const { id, status, mode } = record;
    const { may } = useSession();
    const [, navigate] = useLocation();
    const { failures, submitting, submit } = useSubmission(null);
    const [, apply] = useMutation(ApplyImportDocument);
    const [, start] = useMutation(StartImportDocument);
    const [, cancel] = useMutation(CancelImportDocument);
    if (!may("EDITOR")) {
        return null;
    }
    const mayApply = mode !== "REPLACE" || may("ADMIN");
    const isStopped = status === "VALIDATED" || status === "HELD" || FINISHED.includes(status);
    const asksForRemovals = status === "HELD" && !!record.removals;
    const refreshNow = () => refresh({ requestPolicy: "network-only" });

    const runApply = async () => {
        // The server asks for the number only if the forecast removes too many members.
        const allowRemovals = record.failure ? (record.removals ?? 0) : undefined;
        const payload = await submit(apply({ id, allowRemovals }), (data) => data.applyImport);
        if (payload?.import?.status === "APPLYING") {
            notifications.show({ color: "teal", message: "A worker applies the import." });
        }
        refreshNow();
    };
    const runStart = async () => {
        await submit(start({ id }), (data) => data.startImport);
        refreshNow();
    };
    const runCancel = async () => {
        if (await submit(cancel({ id }), (data) => data.cancelImport)) {
            notifications.show({ color: "teal", message: "The import is cancelled." });
        }
        refreshNow();
    };

    const confirmApply = () =>
        modals.openConfirmModal({
            title: asksForRemovals ? "Confirm the removals" : "Apply the import",
            children: (
                <Text className="break">
                    Segment {record.segment.slug}: {changesOf(record)}
                </Text>
            ),
            labels: { confirm: asksForRemovals ? "Remove and apply" : "Apply", cancel: "Back" },
            confirmProps: { color: record.removals ? "red" : undefined },
            onConfirm: () => void runApply(),
        });
    const confirmCancel = () =>
        modals.openConfirmModal({
            title: "Cancel the import",
            children: (
                <Text>
                    {status === "APPLYING"
                        ? "The changes that are already made stay. The other rows are not applied."
                        : "Nothing is changed. The import cannot be applied afterwards."}
                </Text>
            ),
            labels: { confirm: "Cancel the import", cancel: "Back" },
            confirmProps: { color: "red" },
            onConfirm: () => void runCancel(),
        });
    const repeat = (dryRun: boolean) => {
        reuseForm(slug, id, { dryRun });
        navigate(importPath(slug, "new"));
    };

    return (
        <Stack>
            <Failures messages={failures} />
            <Group gap="xs">
                {(status === "VALIDATED" || status === "HELD") && mayApply && (
                    <Button onClick={confirmApply} loading={submitting}>
                        {asksForRemovals ? "Confirm the removals" : "Apply"}
                    </Button>
                )}
                {status === "AWAITING_UPLOAD" && mayApply && (
                    <Button variant="default" onClick={() => void runStart()} loading={submitting}>
                        Start, the file is uploaded
                    </Button>
                )}
                {!FINISHED.includes(status) && (
                    <Button variant="default" onClick={confirmCancel}>
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
                <Text size="sm">
                    Only the role ADMIN may apply an import with the mode REPLACE.
                </Text>
            )}
        </Stack>
    );
}
