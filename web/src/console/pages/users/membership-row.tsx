import { ActionIcon, Box, Group, Table, Text, Tooltip } from "@mantine/core";
import { CircleHelp, UserMinus } from "lucide-react";
import { Link } from "wouter";

import { Origin } from "../../components/history";
import { explanationPath, SegmentLink } from "../../components/links";
import { CauseBadge, Time } from "../../components/values";
import type { UserMembershipsQuery } from "../../graphql/operations";

type Membership = NonNullable<UserMembershipsQuery["user"]>["memberships"][number];

interface Props {
  userId: string;
  membership: Membership;
  onRemove?: (() => void) | undefined;
}

export function MembershipRow({ userId, membership, onRemove }: Props) {
  const { segment, cause, joinedAt, expiresAt } = membership;
  return (
    <Table.Tr>
      <Table.Td>
        <Text inherit lineClamp={3} title={segment.slug}>
          <SegmentLink {...segment} />
        </Text>
        {segment.name && (
          <Text size="xs" c="dimmed" className="break">
            {segment.name}
          </Text>
        )}
        {/* A phone shows one column. */}
        <Box hiddenFrom="md" mt={4}>
          <CauseBadge cause={cause} />
          <Text size="xs">
            Joined <Time at={joinedAt} />
          </Text>
          <Text size="xs">Ends {expiresAt ? <Time at={expiresAt} /> : "never"}</Text>
          <Text size="xs" className="break">
            <Origin {...membership} prefix="Added by " />
          </Text>
        </Box>
      </Table.Td>
      <Table.Td visibleFrom="md">
        <CauseBadge cause={cause} />
      </Table.Td>
      <Table.Td visibleFrom="md">
        <Time at={joinedAt} />
      </Table.Td>
      <Table.Td visibleFrom="md">
        {expiresAt ? (
          <>
            <Time at={expiresAt} />
            <Text size="xs" c="dimmed">
              <Time at={expiresAt} relative />
            </Text>
          </>
        ) : (
          "Never"
        )}
      </Table.Td>
      <Table.Td className="break" visibleFrom="md">
        <Origin {...membership} otherwise="–" />
      </Table.Td>
      <Table.Td>
        <Group gap={4} justify="flex-end" wrap="nowrap">
          <Tooltip label="Explain">
            <ActionIcon
              component={Link}
              href={explanationPath(userId, segment.slug)}
              variant="subtle"
              aria-label={`Explain why the user is in ${segment.slug}`}
            >
              <CircleHelp size={18} aria-hidden />
            </ActionIcon>
          </Tooltip>
          {onRemove && (
            <Tooltip label="Remove">
              <ActionIcon
                variant="subtle"
                color="red"
                aria-label={`Remove the user from ${segment.slug}`}
                onClick={onRemove}
              >
                <UserMinus size={18} aria-hidden />
              </ActionIcon>
            </Tooltip>
          )}
        </Group>
      </Table.Td>
    </Table.Tr>
  );
}
