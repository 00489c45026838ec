import { Anchor, Badge, Group, Table, Text, Timeline } from "@mantine/core";
import { LogIn, LogOut } from "lucide-react";
import { memo } from "react";
import { Link } from "wouter";

import type { HistoryItemFragment } from "../graphql/operations";
import { SegmentLink, segmentPath, UserLink } from "./links";
import { CauseBadge, OperationBadge, Time } from "./values";

interface TableProps {
  entries: readonly HistoryItemFragment[];
  /** What the table is about, for screen readers. */
  label: string;
  withSegment?: boolean;
  withUser?: boolean;
}

/** Joins and leaves as a table. */
export function HistoryTable({ entries, label, withSegment = true, withUser = true }: TableProps) {
  return (
    <Table.ScrollContainer minWidth={withSegment && withUser ? 480 : 0} type="native">
      <Table aria-label={label} verticalSpacing="xs">
        <Table.Thead>
          <Table.Tr>
            <Table.Th scope="col">Time</Table.Th>
            <Table.Th scope="col">Operation</Table.Th>
            {withUser && <Table.Th scope="col">User</Table.Th>}
            {withSegment && <Table.Th scope="col">Segment</Table.Th>}
            <Table.Th scope="col" visibleFrom="sm">
              Cause
            </Table.Th>
            <Table.Th scope="col" visibleFrom="sm">
              By
            </Table.Th>
          </Table.Tr>
        </Table.Thead>
        <Table.Tbody>
          {entries.map((entry) => (
            <HistoryRow
              key={entry.id}
              entry={entry}
              withSegment={withSegment}
              withUser={withUser}
            />
          ))}
        </Table.Tbody>
      </Table>
    </Table.ScrollContainer>
  );
}

interface RowProps {
  entry: HistoryItemFragment;
  withSegment: boolean;
  withUser: boolean;
}

// The change feed adds rows each second. The others are not rendered again.
const HistoryRow = memo(function HistoryRow({ entry, withSegment, withUser }: RowProps) {
  return (
    <Table.Tr>
      <Table.Td>
        <Group gap={6}>
          <Time at={entry.at} />
          <NotRecorded entry={entry} />
        </Group>
        {/* A phone shows these in the first column. */}
        <Group gap={6} mt={4} hiddenFrom="sm">
          <CauseBadge cause={entry.cause} />
          <Text size="xs" span className="break">
            <Origin {...entry} prefix="by " />
          </Text>
        </Group>
      </Table.Td>
      <Table.Td>
        <OperationBadge operation={entry.operation} />
      </Table.Td>
      {withUser && (
        <Table.Td>
          <UserLink id={entry.userId} userKey={entry.userKey} />
        </Table.Td>
      )}
      {withSegment && (
        <Table.Td>
          <SegmentLink {...entry.segment} />
        </Table.Td>
      )}
      <Table.Td visibleFrom="sm">
        <CauseBadge cause={entry.cause} />
      </Table.Td>
      <Table.Td className="break" visibleFrom="sm">
        <Origin {...entry} otherwise="–" />
      </Table.Td>
    </Table.Tr>
  );
});

/** The joins and leaves of one user as a timeline. */
export function HistoryTimeline({ entries }: { entries: readonly HistoryItemFragment[] }) {
  return (
    <Timeline bulletSize={26} lineWidth={2} mt="xs">
      {entries.map((entry) => (
        <Timeline.Item
          key={entry.id}
          bullet={
            entry.operation === "JOINED" ? (
              <LogIn size={14} aria-hidden />
            ) : (
              <LogOut size={14} aria-hidden />
            )
          }
          title={
            <Text inherit lh="sm" lineClamp={3} title={entry.segment.slug}>
              {entry.operation === "JOINED" ? "Joined " : "Left "}
              <SegmentLink {...entry.segment} />
            </Text>
          }
        >
          <Text size="sm" c="dimmed" component="div">
            <Time at={entry.at} />
            {entry.segment.deletedAt && " · deleted segment"}
          </Text>
          <Group gap="xs" mt={4}>
            <CauseBadge cause={entry.cause} />
            <NotRecorded entry={entry} />
            <Text size="sm" span className="break">
              <Origin {...entry} prefix="by " />
            </Text>
          </Group>
        </Timeline.Item>
      ))}
    </Timeline>
  );
}

interface OriginProps {
  actor: string | null;
  import: { id: string } | null;
  segment: { slug: string; deletedAt: string | null };
  prefix?: string;
  otherwise?: string;
}

/** The API key and the import that caused a join or leave. `otherwise` if they are not known. */
export function Origin({ actor, import: source, segment, prefix = "", otherwise }: OriginProps) {
  if (!actor && !source) {
    return otherwise;
  }
  return (
    <>
      {actor && `${prefix}${actor}`}
      {actor && source && ", "}
      {source &&
        (segment.deletedAt ? (
          "an import"
        ) : (
          <Anchor component={Link} href={segmentPath(segment.slug, "imports")} inherit>
            an import
          </Anchor>
        ))}
    </>
  );
}

// A worker records leaves by TTL and of deleted segments some time after they happened.
function NotRecorded({ entry }: { entry: HistoryItemFragment }) {
  if (entry.recordedAt) {
    return null;
  }
  return (
    <Badge variant="outline" color="gray" c="bright" tt="none" miw="max-content">
      Not recorded yet
    </Badge>
  );
}
