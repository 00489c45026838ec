import {
  Alert,
  Badge,
  DataList,
  List,
  Skeleton,
  Stack,
  Text,
  ThemeIcon,
  VisuallyHidden,
} from "@mantine/core";
import { Check, CircleCheck, CircleMinus, X } from "lucide-react";
import { useEffect, useRef } from "react";
import { useQuery } from "urql";

import { labelOf, REASON_LABELS } from "../../components/enum-labels";
import { ErrorAlert } from "../../components/errors";
import { Time } from "../../components/values";
import { ExplainUserDocument, type ExplainUserQuery } from "../../graphql/operations";
import { RolloutPosition } from "./rollout-position";

interface Props {
  userId: string;
  slug: string;
  asOf: string | null;
}

export function ExplanationResult({ userId, slug, asOf }: Props) {
  const [{ data, error }, refresh] = useQuery({
    query: ExplainUserDocument,
    variables: { id: userId, slug, asOf },
  });
  const top = useRef<HTMLDivElement>(null);
  const loaded = !!data?.explain;
  useEffect(() => {
    // The explained segment may have been chosen at the top of a long table.
    top.current?.closest("section")?.scrollIntoView();
  }, [loaded]);
  if (error) {
    return <ErrorAlert error={error} onRetry={refresh} />;
  }
  if (!data?.explain) {
    return <Skeleton h={240} />;
  }
  const { isIn, reason, summary, rollout, steps } = data.explain;
  return (
    <Stack ref={top}>
      <Alert
        color={isIn ? "teal" : "gray"}
        icon={isIn ? <CircleCheck aria-hidden /> : <CircleMinus aria-hidden />}
        title={`${verdict(isIn, asOf)} ${slug}`}
        className="break"
      >
        {summary}
      </Alert>
      <Facts explanation={data.explain} reason={reason} />
      {rollout && <RolloutPosition position={rollout} />}
      <Steps steps={steps} />
    </Stack>
  );
}

function verdict(isIn: boolean, asOf: string | null): string {
  if (asOf) {
    return isIn ? "The user was in" : "The user was not in";
  }
  return isIn ? "The user is in" : "The user is not in";
}

interface FactsProps {
  explanation: NonNullable<ExplainUserQuery["explain"]>;
  reason: string;
}

function Facts({ explanation, reason }: FactsProps) {
  const { at, since, until, actor } = explanation;
  return (
    <DataList labelWidth="80px" gap="xs">
      <DataList.Item>
        <DataList.ItemLabel>Reason</DataList.ItemLabel>
        <DataList.ItemValue>
          <Badge variant="default" tt="none">
            {labelOf(REASON_LABELS, reason)}
          </Badge>
        </DataList.ItemValue>
      </DataList.Item>
      <DataList.Item>
        <DataList.ItemLabel>At</DataList.ItemLabel>
        <DataList.ItemValue>
          <Time at={at} />
        </DataList.ItemValue>
      </DataList.Item>
      {since && (
        <DataList.Item>
          <DataList.ItemLabel>Since</DataList.ItemLabel>
          <DataList.ItemValue>
            <Time at={since} />
          </DataList.ItemValue>
        </DataList.Item>
      )}
      {until && (
        <DataList.Item>
          <DataList.ItemLabel>Until</DataList.ItemLabel>
          <DataList.ItemValue>
            <Time at={until} />
          </DataList.ItemValue>
        </DataList.Item>
      )}
      {actor && (
        <DataList.Item>
          <DataList.ItemLabel>By</DataList.ItemLabel>
          <DataList.ItemValue className="break">{actor}</DataList.ItemValue>
        </DataList.Item>
      )}
    </DataList>
  );
}

interface StepsProps {
  steps: NonNullable<ExplainUserQuery["explain"]>["steps"];
}

function Steps({ steps }: StepsProps) {
  return (
    <List spacing="xs" center listStyleType="none" aria-label="Checks">
      {steps.map(({ check, passed, detail }) => (
        <List.Item
          key={check}
          icon={
            <ThemeIcon variant="light" size={24} color={passed ? "teal" : "gray"}>
              {passed ? <Check size={16} aria-hidden /> : <X size={16} aria-hidden />}
            </ThemeIcon>
          }
        >
          <Text size="sm" fw={500}>
            <VisuallyHidden>{passed ? "Yes: " : "No: "}</VisuallyHidden>
            {check[0]?.toUpperCase()}
            {check.slice(1)}
          </Text>
          <Text size="sm" c="dimmed" className="break">
            {detail}
          </Text>
        </List.Item>
      ))}
    </List>
  );
}
