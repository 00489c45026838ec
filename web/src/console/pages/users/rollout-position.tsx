import { Box, Group, Progress, Stack, Text } from "@mantine/core";

import { formatPercent } from "../../format";
import type { ExplainUserQuery } from "../../graphql/operations";
import { boundPercent } from "./hash-range";

interface Props {
  position: NonNullable<NonNullable<ExplainUserQuery["explain"]>["rollout"]>;
}

/** The positions from 0% to 100%, with the part that the rollout takes and the user's position. */
export function RolloutPosition({ position }: Props) {
  const { hashPercent, boundHash, inSample } = position;
  const bound = boundHash === null ? null : boundPercent(boundHash);
  const start = "Each user has a fixed position between 0% and 100%, which looks random.";
  const sentence =
    bound === null
      ? `${start} This user is at ${formatPercent(hashPercent)}. ` +
        "The rollout has not chosen its users yet, or the choice is not known."
      : `${start} The rollout takes the users up to ${formatPercent(bound)}. ` +
        `This user is at ${formatPercent(hashPercent)}, so the rollout ` +
        `${inSample ? "takes" : "does not take"} the user.`;
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
