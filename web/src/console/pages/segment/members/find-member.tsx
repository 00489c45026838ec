import { Alert, Anchor, Button, Group, Loader, Stack, Text, TextInput } from "@mantine/core";
import { Search } from "lucide-react";
import { type FormEvent, useState } from "react";
import { useQuery } from "urql";
import { Link } from "wouter";

import { ErrorAlert } from "../../../components/errors";
import { ShowAsGraphQL } from "../../../components/page";
import { isUserId, keysOf } from "../../../components/user-id";
import { FindMemberDocument, type FindMemberQuery } from "../../../graphql/operations";
import { SelectableMembers } from "./selectable-members";

interface FindMemberProps {
  /** The id or the key that is shown. Empty if the list of members is shown. */
  searchText: string;
  onFind: (searchText: string) => void;
}

/** The form that finds one member. */
export function FindMember({ searchText, onFind }: FindMemberProps) {
  const [text, setText] = useState(searchText);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    onFind(text.trim() && text);
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
        <Button type="submit" variant="default" leftSection={<Search size={16} aria-hidden />}>
          Find
        </Button>
        {searchText && (
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
export function FoundUsers({ slug, searchText }: { slug: string; searchText: string }) {
  const [selected, setSelected] = useState<ReadonlySet<string>>(new Set());
  const trimmed = searchText.trim();
  const byId = isUserId(trimmed);
  const keys = keysOf(searchText);
  const variables = { slug, byId, id: byId ? trimmed : "1", keys };
  const [{ data, error, fetching }, refresh] = useQuery({ query: FindMemberDocument, variables });

  const found = [data?.user, ...(data?.usersByKey ?? [])].filter((user) => user != null);
  const users = [...new Map(found.map((user) => [user.id, user])).values()];
  const members = users.map(({ membership }) => membership).filter((member) => member != null);
  return (
    <Stack>
      <ErrorAlert error={error} onRetry={refresh} />
      {fetching && !data && <Loader aria-label="Looking for the user" />}
      {data && !error && users.length === 0 && (
        <Alert color="gray" role="status" className="break">
          No user has the id or the key “{searchText}”.
        </Alert>
      )}
      {users.map((user) => (
        <MembershipAlert key={user.id} user={user} />
      ))}
      {members.length > 0 && (
        <SelectableMembers
          slug={slug}
          members={members}
          selected={selected}
          onSelect={setSelected}
        />
      )}
      <Group>
        <ShowAsGraphQL document={FindMemberDocument} variables={variables} />
      </Group>
    </Stack>
  );
}

function MembershipAlert({ user }: { user: NonNullable<FindMemberQuery["user"]> }) {
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
