import { ActionIcon, Group, Table, Text, Tooltip } from "@mantine/core";
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
                <SegmentLink {...segment} />
                {segment.name && (
                    <Text size="xs" c="dimmed" className="break">
                        {segment.name}
                    </Text>
                )}
            </Table.Td>
            <Table.Td>
                <CauseBadge cause={cause} />
            </Table.Td>
            <Table.Td>
                <Time at={joinedAt} />
            </Table.Td>
            <Table.Td>
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
            <Table.Td className="break">
                <Origin {...membership} />
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
