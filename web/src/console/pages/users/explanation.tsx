import { Button, Flex, Input, SegmentedControl } from "@mantine/core";
import { useForm } from "@mantine/form";
import { useEffect } from "react";
import { useLocation } from "wouter";

import { DateTimeInput } from "../../components/date-time-input";
import { explanationPath } from "../../components/links";
import { ShowAsGraphQL } from "../../components/page";
import { Section } from "../../components/section";
import { SlugInput } from "../../components/segment-input";
import { ExplainUserDocument } from "../../graphql/operations";
import { ExplanationResult } from "./explanation-result";

interface Props {
  userId: string;
  /** The explained segment and time, which the page's address has. Both may be empty. */
  slug: string;
  at: string;
}

interface Values {
  slug: string;
  when: string;
  at: string;
}

/** Why the user is or is not in a segment, now or at a past time. */
export function Explanation({ userId, slug, at }: Props) {
  return (
    <Section
      title="Why is the user in a segment, or not?"
      actions={
        slug && (
          <ShowAsGraphQL
            document={ExplainUserDocument}
            variables={{ id: userId, slug, asOf: at || null }}
          />
        )
      }
    >
      <ExplanationForm userId={userId} slug={slug} at={at} />
      {slug && (
        <div aria-live="polite">
          <ExplanationResult key={`${slug} ${at}`} userId={userId} slug={slug} asOf={at || null} />
        </div>
      )}
    </Section>
  );
}

function ExplanationForm({ userId, slug, at }: Props) {
  const [, navigate] = useLocation();
  const form = useForm<Values>({
    mode: "controlled",
    initialValues: { slug, when: at ? "past" : "now", at },
    validate: {
      slug: (value) => (value ? null : "Enter the slug of a segment."),
      at: (value, { when }) => (when === "past" && !value ? "Enter a time." : null),
    },
  });
  const { setValues } = form;
  useEffect(() => {
    // Another segment was chosen in the table above.
    setValues({ slug, when: at ? "past" : "now", at });
  }, [setValues, slug, at]);
  const isPast = form.getValues().when === "past";

  const explain = form.onSubmit((values) => {
    navigate(explanationPath(userId, values.slug.trim(), values.when === "past" ? values.at : ""));
  });

  return (
    <form onSubmit={explain} noValidate>
      <Flex gap="sm" align="flex-end" wrap="wrap">
        <SlugInput
          label="Segment"
          placeholder="Search by slug or name"
          flex="1 1 240px"
          {...form.getInputProps("slug")}
        />
        <Input.Wrapper label="Time" labelElement="div">
          <SegmentedControl
            aria-label="Time"
            fullWidth
            data={[
              { value: "now", label: "Now" },
              { value: "past", label: "In the past" },
            ]}
            {...form.getInputProps("when")}
          />
        </Input.Wrapper>
        {isPast && (
          <DateTimeInput label="At" {...form.getInputProps("at")} value={form.getValues().at} />
        )}
        <Button type="submit">Explain</Button>
      </Flex>
    </form>
  );
}
