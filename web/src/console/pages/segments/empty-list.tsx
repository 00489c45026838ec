import { Button, Center, Stack, Text } from "@mantine/core";
import { UsersRound } from "lucide-react";
import type { ReactNode } from "react";

interface Props {
  search: string;
  createButton: ReactNode;
  onClear: () => void;
}

/** What the page shows if the list has no segment. */
export function EmptyList({ search, createButton, onClear }: Props) {
  return (
    <Center py="xl">
      <Stack align="center" gap="sm" maw={440} ta="center">
        <UsersRound size={40} strokeWidth={1.5} aria-hidden />
        {search ? (
          <>
            <Text fw={600} className="break">
              No slug or name contains “{search}”.
            </Text>
            <Button variant="default" onClick={onClear}>
              Clear the search
            </Button>
          </>
        ) : (
          <>
            <Text fw={600}>There are no segments yet.</Text>
            <Text c="dimmed">
              A segment is a named set of users. You add users by hand, from a list, or as a
              percentage of all users.
            </Text>
            {createButton}
          </>
        )}
      </Stack>
    </Center>
  );
}
