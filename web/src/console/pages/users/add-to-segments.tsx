import { Button, Group, Modal, Stack } from "@mantine/core";
import { useForm } from "@mantine/form";
import { notifications } from "@mantine/notifications";
import { useMutation } from "urql";

import { type End, endInput } from "../../components/duration";
import { EndInputs } from "../../components/end-inputs";
import { Failures, useSubmission } from "../../components/forms";
import { OnExistingInput } from "../../components/on-existing-input";
import { SegmentsInput } from "../../components/segment-input";
import { formatNumber } from "../../format";
import { type OnExisting, UpdateUserSegmentsDocument } from "../../graphql/operations";

/** The server accepts no more slugs in one mutation. */
const MAX_SEGMENTS = 100;

const FIELDS: Record<string, string> = {
    add: "add",
    ttlSeconds: "amount",
    expiresAt: "expiresAt",
    onExisting: "onExisting",
};

export interface AddValues extends End {
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
            kind: "never",
            amount: 30,
            unit: "days",
            expiresAt: "",
            onExisting: "EXTEND",
        },
        validate: {
            add: (slugs) => (slugs.length === 0 ? "Select at least one segment." : null),
            amount: (amount, { kind }) =>
                kind === "after" && amount === "" ? "Enter a duration." : null,
            expiresAt: (at, { kind }) => (kind === "at" && !at ? "Enter a time." : null),
        },
    });
    const { failures, submitting, submit } = useSubmission(
        form,
        ([field = ""]) => FIELDS[field] ?? field,
    );
    const [, update] = useMutation(UpdateUserSegmentsDocument);

    const add = form.onSubmit(async (values) => {
        const payload = await submit(
            update({
                input: {
                    userId,
                    add: values.add,
                    onExisting: values.onExisting,
                    ...endInput(values),
                },
            }),
            (data) => data.updateUserSegments,
        );
        if (payload) {
            notifications.show({
                color: "teal",
                message: describeResult(
                    values.add.length,
                    payload.segmentsAdded,
                    payload.segmentsExtended,
                ),
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
                <EndInputs form={form} />
                <OnExistingInput
                    label="If the user is in a segment already"
                    {...form.getInputProps("onExisting")}
                />
                <Failures messages={failures} />
                <Group justify="flex-end">
                    <Button variant="default" onClick={onClose}>
                        Cancel
                    </Button>
                    <Button type="submit" loading={submitting}>
                        Add
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
