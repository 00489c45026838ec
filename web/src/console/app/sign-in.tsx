import {
  Anchor,
  Button,
  Center,
  Checkbox,
  Code,
  Paper,
  PasswordInput,
  Stack,
  Text,
  Title,
} from "@mantine/core";
import { type FormEvent, useState } from "react";

import { createClient } from "../graphql/client";
import { ViewerDocument } from "../graphql/operations";
import { describeError } from "../components/errors";
import { graphqlPath } from "./public-settings";
import { hasGraphiQL } from "./server";
import { isApiKey, type Session } from "./stored-session";

interface Props {
  /** Why the last session ended. */
  notice?: string | undefined;
  onSignIn: (session: Session, keep: boolean) => void;
}

export function SignIn({ notice, onSignIn }: Props) {
  const [apiKey, setApiKey] = useState("");
  const [keep, setKeep] = useState(false);
  const [error, setError] = useState(notice);
  const [checking, setChecking] = useState(false);

  const submit = async (event: FormEvent) => {
    event.preventDefault();
    const entered = apiKey.trim().replace(/^bearer +/i, "");
    if (!entered) {
      setError("Enter an API key.");
      return;
    }
    if (!isApiKey(entered)) {
      setError("An API key has only Latin letters, digits and signs, without spaces.");
      return;
    }
    setChecking(true);
    const result = await createClient(entered, () => {}).query(ViewerDocument, {});
    setChecking(false);
    const viewer = result.data?.viewer;
    if (viewer?.role === "EVALUATOR") {
      setError(
        "This API key is for applications and cannot sign in. Use a key with the role Reader, Editor or Admin.",
      );
    } else if (viewer) {
      onSignIn({ apiKey: entered, name: viewer.name, role: viewer.role }, keep);
    } else {
      setError(result.error ? describeError(result.error) : "The server does not know this key.");
    }
  };

  return (
    <Center component="main" mih="100vh" p="md">
      <Paper withBorder shadow="sm" p="xl" w="100%" maw={440}>
        <form onSubmit={submit} noValidate>
          <Stack>
            <Title order={1} size="h2">
              SegmentQL
            </Title>
            <PasswordInput
              label="API key"
              placeholder="sgql_..."
              autoComplete="off"
              autoFocus
              value={apiKey}
              onChange={(event) => setApiKey(event.currentTarget.value)}
              error={error}
              aria-invalid={Boolean(error)}
            />
            <Checkbox
              label="Keep me signed in until I close this tab"
              checked={keep}
              onChange={(event) => setKeep(event.currentTarget.checked)}
            />
            <Button type="submit" loading={checking}>
              Sign in
            </Button>
            <Text size="sm" c="dimmed">
              An operator creates a key with <Code>segmentql keys create --role EDITOR</Code>
              {hasGraphiQL && (
                <>
                  . Programmers can use{" "}
                  <Anchor href={graphqlPath()} underline="always">
                    GraphiQL
                  </Anchor>
                </>
              )}
              .
            </Text>
          </Stack>
        </form>
      </Paper>
    </Center>
  );
}
