import { Alert, Anchor, Box, Button, DataList, Group, Text, TextInput } from "@mantine/core";
import { Search, UserX } from "lucide-react";
import { type FormEvent, useState } from "react";
import { useClient } from "urql";
import { Link, useLocation } from "wouter";

import { describeError } from "../../components/errors";
import { UserLink } from "../../components/links";
import { isUserId, keysOf } from "../../components/user-id";
import { FindUserDocument } from "../../graphql/operations";

interface Found {
  id: string;
  key: string | null;
}

/** What the server has for an entered text, if it is not exactly one user. */
interface Result {
  text: string;
  users: Found[];
}

/** Find a user by id or by key. */
export function UserSearch() {
  const client = useClient();
  const [, navigate] = useLocation();
  const [text, setText] = useState("");
  const [error, setError] = useState<string>();
  const [result, setResult] = useState<Result>();
  const [searching, setSearching] = useState(false);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    setResult(undefined);
    const trimmed = text.trim();
    if (!trimmed) {
      setError("Enter the id or the key of a user.");
      return;
    }
    setError(undefined);
    setSearching(true);
    const { data, error: failure } = await client.query(
      FindUserDocument,
      // A key may begin or end with a space, and a pasted one may have one too many.
      { id: trimmed, byId: isUserId(trimmed), keys: keysOf(text) },
      { requestPolicy: "network-only" },
    );
    setSearching(false);
    if (failure) {
      setError(describeError(failure));
      return;
    }
    const users = [data?.user, ...(data?.usersByKey ?? [])].filter((user) => !!user);
    const ids = [...new Set(users.map((user) => user.id))];
    if (ids.length === 1) {
      navigate(`/users/${ids[0]}`);
    } else {
      setResult({ text: trimmed, users });
    }
  };

  return (
    <>
      <form onSubmit={submit} noValidate role="search">
        <TextInput
          label="User id or key"
          description="Digits are tried as an id and as a key."
          autoComplete="off"
          autoFocus
          maw={640}
          leftSection={<Search size={16} aria-hidden />}
          value={text}
          onChange={(event) => setText(event.currentTarget.value)}
          error={error}
          inputContainer={(input) => (
            <Group wrap="nowrap" gap="xs" align="flex-end">
              <Box flex={1}>{input}</Box>
              <Button type="submit" loading={searching}>
                Find
              </Button>
            </Group>
          )}
        />
      </form>
      <div aria-live="polite">{result && <SearchResult {...result} />}</div>
    </>
  );
}

function SearchResult({ text, users }: Result) {
  if (users.length > 0) {
    return (
      <Alert title="Two users match" variant="default" maw={640}>
        <DataList labelWidth="60px" gap="xs">
          {users.map(({ id, key }) => (
            <DataList.Item key={id}>
              <DataList.ItemLabel>{id === text ? "By id" : "By key"}</DataList.ItemLabel>
              <DataList.ItemValue>
                <UserLink id={id} userKey={key} />
              </DataList.ItemValue>
            </DataList.Item>
          ))}
        </DataList>
      </Alert>
    );
  }
  return (
    <Alert
      title="This user does not exist"
      variant="default"
      icon={<UserX aria-hidden />}
      maw={640}
      className="break"
    >
      {isUserId(text) ? (
        <Text size="sm">
          No user has the id or the key {text}. A deleted user still has a history.{" "}
          <Anchor component={Link} href={`/users/${text}`} underline="always" inherit>
            Show the page of user {text}
          </Anchor>
        </Text>
      ) : (
        <Text size="sm">
          No user has the key “{text}”. To see the history of a deleted user, enter the user's id.
        </Text>
      )}
    </Alert>
  );
}
