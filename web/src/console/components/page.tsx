import { Button, Group, Stack, Text, Title } from "@mantine/core";
import { useDocumentTitle } from "@mantine/hooks";
import { stringifyDocument, type TypedDocumentNode } from "@urql/core";
import { Braces } from "lucide-react";
import type { ReactNode } from "react";

import { graphqlPath } from "../app/public-settings";
import { hasGraphiQL } from "../app/server";

interface Props {
  title: string;
  description?: ReactNode;
  /** Buttons beside the title. */
  actions?: ReactNode;
  children: ReactNode;
}

/** A page with its title, which is also the title of the browser's tab. */
export function Page({ title, description, actions, children }: Props) {
  useDocumentTitle(`${title} · SegmentQL`);
  return (
    <Stack gap="lg">
      <Group justify="space-between" align="flex-start">
        <div>
          <Title order={1} size="h2" className="break">
            {title}
          </Title>
          {description && (
            <Text c="dimmed" component="div" className="break">
              {description}
            </Text>
          )}
        </div>
        {actions && <Group gap="xs">{actions}</Group>}
      </Group>
      {children}
    </Stack>
  );
}

interface QueryLinkProps<Variables> {
  document: TypedDocumentNode<unknown, Variables>;
  variables: NoInfer<Variables>;
}

/** A link that opens an operation of this page in GraphiQL. Renders nothing if the server has no GraphiQL. */
export function ShowAsGraphQL<Variables>({ document, variables }: QueryLinkProps<Variables>) {
  if (!hasGraphiQL) {
    return null;
  }
  const parameters = new URLSearchParams({
    query: stringifyDocument(document),
    variables: JSON.stringify(variables, null, 2),
  });
  return (
    <Button
      component="a"
      href={`${graphqlPath()}#${parameters}`}
      target="_blank"
      variant="subtle"
      size="xs"
      leftSection={<Braces size={16} aria-hidden />}
    >
      Show as GraphQL
    </Button>
  );
}
