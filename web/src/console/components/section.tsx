import { Group, Paper, type PaperProps, Stack, Title } from "@mantine/core";
import { type ReactNode, useId } from "react";

interface Props extends Pick<PaperProps, "h"> {
  title: string;
  actions?: ReactNode;
  children: ReactNode;
}

/** A bordered section of a page, with a title and buttons. */
export function Section({ title, actions, children, ...props }: Props) {
  const titleId = useId();
  return (
    <Paper
      {...props}
      withBorder
      p="md"
      component="section"
      aria-labelledby={titleId}
      // The header of the page covers its top.
      style={{ scrollMarginTop: "calc(var(--app-shell-header-height) + 1rem)" }}
    >
      <Stack>
        <Group justify="space-between" mih={36}>
          <Title order={2} size="h4" id={titleId}>
            {title}
          </Title>
          {actions && <Group gap="xs">{actions}</Group>}
        </Group>
        {children}
      </Stack>
    </Paper>
  );
}
