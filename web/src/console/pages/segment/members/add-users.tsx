import {
    Anchor,
    Button,
    Group,
    List,
    Modal,
    NumberInput,
    SegmentedControl,
    Select,
    Stack,
    Text,
    Textarea,
} from "@mantine/core";
import { useForm } from "@mantine/form";
import { useState } from "react";
import { Link } from "wouter";

import { DateTimeInput, Failures, useSubmission } from "../../../components/forms";
import { segmentPath } from "../../../components/links";
import { formatNumber } from "../../../format";
import type { OnExisting } from "../../../graphql/operations";
import { describeOutcome, type OutcomeCount } from "./outcomes";
import { useUpdateMembers } from "./update-members";
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

const UNIT_SECONDS = { minutes: 60, hours: 3600, days: 86_400 };
type Unit = keyof typeof UNIT_SECONDS;

const IDENTITIES = [
    { value: "ID", label: "Ids" },
    { value: "KEY", label: "Keys" },
];
const ENDS = [
    { value: "none", label: "No end" },
    { value: "ttl", label: "After a time" },
    { value: "at", label: "At a date" },
];
const ON_EXISTING: { value: OnExisting; label: string }[] = [
    { value: "EXTEND", label: "Keep the later end" },
    { value: "REPLACE", label: "Set the new end" },
    { value: "KEEP", label: "Change nothing" },
];

interface AddFormProps {
    slug: string;
    onAdded: (counts: readonly OutcomeCount[]) => void;
    onClose: () => void;
}

function AddForm({ slug, onAdded, onClose }: AddFormProps) {
    const updateMembers = useUpdateMembers();
    const form = useForm({
        initialValues: {
            identity: "ID",
            users: "",
            end: "none",
            ttl: 30 as number | string,
            unit: "days" as Unit,
            expiresAt: "",
            onExisting: "EXTEND" as OnExisting,
        },
    });
    const { identity, users, end, ttl, unit, expiresAt, onExisting } = form.values;
    const byKey = identity === "KEY";
    const list = byKey ? parseKeys(users) : parseIds(users);
    const { failures, submitting, submit } = useSubmission(form, ([field = ""]) =>
        field === "add" || field === "addKeys" ? "users" : field === "ttlSeconds" ? "ttl" : field,
    );

    const onSubmit = form.onSubmit(async () => {
        const wrongCount = checkCount(list.length);
        if (wrongCount) {
            form.setFieldError("users", wrongCount);
            return;
        }
        if (end === "ttl" && typeof ttl !== "number") {
            form.setFieldError("ttl", "Enter a number.");
            return;
        }
        if (end === "at" && !expiresAt) {
            form.setFieldError("expiresAt", "Enter a date and a time.");
            return;
        }
        const input = {
            slug,
            ...(byKey ? { addKeys: list } : { add: list }),
            ttlSeconds: end === "ttl" ? Math.round(Number(ttl) * UNIT_SECONDS[unit]) : null,
            expiresAt: end === "at" ? expiresAt : null,
            onExisting,
        };
        const payload = await submit(updateMembers(input), (data) => data.updateSegmentMembers);
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
                            ? "One a line. A key without a stored user stores a new user."
                            : "Separated by spaces, commas or line ends. Users who are not stored are stored."
                    }
                    autosize
                    minRows={5}
                    maxRows={12}
                    spellCheck={false}
                    data-autofocus
                    {...form.getInputProps("users")}
                />
                <Text size="sm" c="dimmed">
                    {formatNumber(list.length)} of at most {formatNumber(MAX_USERS)} users. For a
                    longer list, use an{" "}
                    <Anchor component={Link} href={segmentPath(slug, "imports")} inherit>
                        import
                    </Anchor>
                    .
                </Text>
                <Stack gap="xs">
                    <Text size="sm" fw={500} id="add-users-end">
                        End of the memberships
                    </Text>
                    <SegmentedControl
                        aria-labelledby="add-users-end"
                        data={ENDS}
                        {...form.getInputProps("end")}
                    />
                </Stack>
                {end === "ttl" && (
                    <Group align="flex-start" grow>
                        <NumberInput
                            label="Time until the end"
                            min={1}
                            decimalScale={0}
                            {...form.getInputProps("ttl")}
                        />
                        <Select
                            label="Unit"
                            allowDeselect={false}
                            data={Object.keys(UNIT_SECONDS)}
                            {...form.getInputProps("unit")}
                        />
                    </Group>
                )}
                {end === "at" && (
                    <DateTimeInput
                        label="Date and time"
                        description="In your time zone."
                        {...form.getInputProps("expiresAt")}
                        value={expiresAt}
                    />
                )}
                <Select
                    label="If a user is already a member"
                    allowDeselect={false}
                    data={ON_EXISTING}
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

interface OutcomesProps {
    counts: readonly OutcomeCount[];
    onMore: () => void;
    onClose: () => void;
}

function Outcomes({ counts, onMore, onClose }: OutcomesProps) {
    return (
        <Stack>
            <List role="status">
                {counts.map((count) => (
                    <List.Item key={count.outcome}>{describeOutcome(count)}</List.Item>
                ))}
            </List>
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
