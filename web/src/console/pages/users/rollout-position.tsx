import { Box, Group, Progress, Stack, Text } from "@mantine/core";

import { formatPercent } from "../../format";
import type { ExplainUserQuery } from "../../graphql/operations";
import { boundPercent } from "./hash-range";

interface Props {
    position: NonNullable<NonNullable<ExplainUserQuery["explain"]>["rollout"]>;
}

/** The range of hashes from 0 to 100 %, with the part of the sample and the user's position. */
export function RolloutPosition({ position }: Props) {
    const { hashPercent, boundHash, inSample, percent } = position;
    const bound = boundHash === null ? null : boundPercent(boundHash);
    const sample =
        bound === null
            ? "It has no sample at this time, or the sample is not known."
            : `The sample is the users whose hash is in the first ${formatPercent(bound)} of the range.`;
    const sentence =
        `The rollout is at ${formatPercent(percent)} of all users. ${sample} ` +
        `This user's hash is at ${formatPercent(hashPercent)}. ` +
        `The user is ${inSample ? "" : "not "}in the sample.`;
    return (
        <Stack gap={4} component="figure" m={0}>
            <Text size="sm" fw={500} component="figcaption">
                Position in the rollout
            </Text>
            <Box pos="relative" role="img" aria-label={sentence}>
                <Progress.Root size={20} radius="sm" aria-hidden>
                    <Progress.Section value={bound ?? 0} color="violet" withAria={false} />
                </Progress.Root>
                <Box
                    pos="absolute"
                    top={-4}
                    h={28}
                    w={4}
                    ml={-2}
                    left={`${hashPercent}%`}
                    bg="var(--mantine-color-text)"
                    bdrs="xs"
                />
            </Box>
            <Group justify="space-between" aria-hidden>
                <Text size="xs" c="dimmed">
                    0%
                </Text>
                <Text size="xs" c="dimmed">
                    100%
                </Text>
            </Group>
            <Text size="sm">{sentence}</Text>
        </Stack>
    );
}
