import { Group, Paper, Stack, Title } from "@mantine/core";
import { type ReactNode, useId } from "react";

interface Props {
    title: string;
    actions?: ReactNode;
    children: ReactNode;
}

/** A part of the page of a user. */
export function Section({ title, actions, children }: Props) {
    const titleId = useId();
    return (
        <Paper
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
