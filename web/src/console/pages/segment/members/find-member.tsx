import { Alert, Anchor, Button, Group, Loader, Stack, Text, TextInput } from "@mantine/core";
import { Search } from "lucide-react";
import { type FormEvent, useState } from "react";
import { useQuery } from "urql";
import { Link } from "wouter";

import { useSession } from "../../../app/session";
import { ErrorAlert } from "../../../components/errors";
import { isUserId } from "../../../components/identity";
import { ShowAsGraphQL } from "../../../components/page";
import { FindMemberDocument, type FindMemberQuery } from "../../../graphql/operations";
import { MembersTable } from "./members-table";
import { RemoveMembers } from "./remove-members";

interface FindMemberProps {
    /** The id or the key that is shown. Empty if the list of members is shown. */
    wanted: string;
    onFind: (wanted: string) => void;
}

/** The form that finds one member. */
export function FindMember({ wanted, onFind }: FindMemberProps) {
    const [text, setText] = useState(wanted);
    const submit = (event: FormEvent) => {
        event.preventDefault();
        onFind(text.trim());
    };
    return (
        <form onSubmit={submit} role="search">
            <Group gap="xs" align="flex-end">
                <TextInput
                    label="Find a member"
                    placeholder="User id or key"
                    autoComplete="off"
                    spellCheck={false}
                    maxLength={255}
                    value={text}
                    onChange={(event) => setText(event.currentTarget.value)}
                />
                <Button
                    type="submit"
                    variant="default"
                    leftSection={<Search size={16} aria-hidden />}
                >
                    Find
                </Button>
                {wanted && (
                    <Button
                        variant="subtle"
                        onClick={() => {
                            setText("");
                            onFind("");
                        }}
                    >
                        Show all
                    </Button>
                )}
            </Group>
        </form>
    );
}

/** The users who have an id or a key, and whether they are members. */
export function FoundUsers({ slug, wanted }: { slug: string; wanted: string }) {
    const { may } = useSession();
    const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
    const byId = isUserId(wanted);
    const variables = { slug, byId, id: byId ? wanted : "1", key: wanted };
    const [{ data, error, fetching }, refresh] = useQuery({ query: FindMemberDocument, variables });

    const users = [data?.user, data?.userByKey].filter((user) => user != null);
    const members = users.map(({ membership }) => membership).filter((member) => member != null);
    return (
        <Stack>
            <ErrorAlert error={error} onRetry={refresh} />
            {fetching && !data && <Loader aria-label="Looking for the user" />}
            {data && !error && users.length === 0 && (
                <Alert color="gray" role="status" className="break">
                    No user has the id or the key “{wanted}”.
                </Alert>
            )}
            {users.map((user) => (
                <Verdict key={user.id} user={user} />
            ))}
            {members.length > 0 && (
                <>
                    {may("EDITOR") && (
                        <RemoveMembers
                            slug={slug}
                            users={members
                                .map(({ user }) => user.id)
                                .filter((id) => selected.has(id))}
                            onRemoved={() => setSelected(new Set())}
                        />
                    )}
                    <MembersTable
                        slug={slug}
                        members={members}
                        selected={may("EDITOR") ? selected : null}
                        onSelect={setSelected}
                    />
                </>
            )}
            <Group>
                <ShowAsGraphQL document={FindMemberDocument} variables={variables} />
            </Group>
        </Stack>
    );
}

function Verdict({ user }: { user: NonNullable<FindMemberQuery["userByKey"]> }) {
    return (
        <Alert color={user.membership ? "teal" : "gray"} role="status">
            <Text size="sm" className="break">
                User{" "}
                <Anchor component={Link} href={`/users/${user.id}`} inherit underline="always">
                    {user.id}
                </Anchor>{" "}
                {user.key && `(${user.key}) `}
                {user.membership ? "is a member." : "is not a member."}
                {user.isExcluded && " The rollout excludes the user."}
            </Text>
        </Alert>
    );
}
