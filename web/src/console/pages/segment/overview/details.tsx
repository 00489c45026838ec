import { Button, Group, Stack, Text } from "@mantine/core";
import { useDisclosure } from "@mantine/hooks";
import { Pencil, Trash2 } from "lucide-react";
import type { ReactNode } from "react";

import { useSession } from "../../../app/session";
import { Section } from "../../../components/section";
import { FormattedNumber, Time } from "../../../components/values";
import type { SegmentOverviewQuery } from "../../../graphql/operations";
import { DeleteSegment } from "./delete-segment";
import { EditSegment } from "./edit-segment";

interface Props {
  segment: NonNullable<SegmentOverviewQuery["segment"]>;
}

/** The facts about a segment, with the buttons that edit and delete it. */
export function Details({ segment }: Props) {
  const { hasRole } = useSession();
  const [editing, edit] = useDisclosure();
  const [deleting, deletion] = useDisclosure();
  return (
    <Section title="Details">
      <Stack gap="sm">
        {segment.description ? (
          <Text size="sm" className="break" style={{ whiteSpace: "pre-line" }}>
            {segment.description}
          </Text>
        ) : (
          <Text size="sm" c="dimmed">
            No description.
          </Text>
        )}
        <Group gap="sm" align="flex-start" component="dl" m={0}>
          <Fact label="Created">
            <Time at={segment.createdAt} />
          </Fact>
          <Fact label="Updated">
            <Time at={segment.updatedAt} />
          </Fact>
          <Fact label="Version">
            <FormattedNumber value={segment.version} />
          </Fact>
        </Group>
        {hasRole("EDITOR") && (
          <Group gap="xs">
            <Button
              variant="default"
              size="xs"
              leftSection={<Pencil size={16} aria-hidden />}
              onClick={edit.open}
            >
              Edit
            </Button>
            {hasRole("ADMIN") && (
              <Button
                variant="light"
                color="red"
                size="xs"
                leftSection={<Trash2 size={16} aria-hidden />}
                onClick={deletion.open}
              >
                Delete
              </Button>
            )}
          </Group>
        )}
      </Stack>
      <EditSegment segment={segment} opened={editing} onClose={edit.close} />
      <DeleteSegment slug={segment.slug} opened={deleting} onClose={deletion.close} />
    </Section>
  );
}

function Fact({ label, children }: { label: string; children: ReactNode }) {
  return (
    <div>
      <Text size="xs" c="dimmed" component="dt">
        {label}
      </Text>
      <Text size="sm" component="dd" m={0}>
        {children}
      </Text>
    </div>
  );
}
