import { Alert, Button, Group, Text } from "@mantine/core";
import type { CombinedError } from "@urql/core";
import { CircleAlert } from "lucide-react";

import { codeOf } from "../graphql/client";

/** Return one sentence that says why a request failed. */
export function describeError(error: CombinedError): string {
  if (error.graphQLErrors[0]) {
    return error.graphQLErrors[0].message;
  }
  return "The server does not respond. Check the connection and try again.";
}

interface Props {
  error: CombinedError | undefined;
  onRetry?: () => void;
}

/** An error of a whole request. Renders nothing if there is no error. */
export function ErrorAlert({ error, onRetry }: Props) {
  if (!error) {
    return null;
  }
  const requestId = error.graphQLErrors[0]?.extensions?.requestId;
  const code = codeOf(error);
  const details = [
    code && `Code ${code}`,
    typeof requestId === "string" && `request ${requestId}`,
  ].filter(Boolean);
  return (
    <Alert
      color="red"
      variant="light"
      role="alert"
      icon={<CircleAlert aria-hidden />}
      title="The request failed"
    >
      <Group justify="space-between">
        <Text size="sm" className="break">
          {describeError(error)}
          {details.length > 0 && ` ${details.join(", ")}.`}
        </Text>
        {onRetry && (
          <Button size="xs" variant="default" onClick={() => onRetry()}>
            Try again
          </Button>
        )}
      </Group>
    </Alert>
  );
}
