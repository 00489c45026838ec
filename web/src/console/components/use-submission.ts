import type { UseFormReturnType } from "@mantine/form";
import type { OperationResult } from "@urql/core";
import { useCallback, useState } from "react";

import { describeError } from "./errors";

/** A typed error of a mutation: `errors { message path }`. */
export interface MutationErrorFields {
  message: string;
  path: string[];
}

interface Payload {
  errors: MutationErrorFields[];
}

interface Submission {
  /** The errors that belong to no field of the form. */
  failures: string[];
  submitting: boolean;
  /**
   * Send a mutation and show its errors: at the fields that they name, or else in `failures`.
   * Nothing is sent while the previous mutation runs.
   *
   * @returns The payload, or null if the mutation was rejected, failed or was not sent.
   */
  submit: <Data, P extends Payload>(
    send: () => Promise<OperationResult<Data>>,
    payloadOf: (data: Data) => P | null | undefined,
  ) => Promise<P | null>;
  clearFailures: () => void;
}

/**
 * Keep the state of a form whose values a mutation takes as its input.
 *
 * @param form The form; null if the mutation has no fields to fill in.
 * @param toField Returns the form's field for a path into the input. By default, the path itself.
 */
export function useSubmission<Values>(
  form: UseFormReturnType<Values> | null,
  toField: (path: string[]) => string = (path) => path.join("."),
): Submission {
  const [failures, setFailures] = useState<string[]>([]);
  const [submitting, setSubmitting] = useState(false);
  // The state changes with the next render only, which two events of one moment precede.
  const [runOnce] = useState(createGate);

  const submit: Submission["submit"] = async (send, payloadOf) => {
    const result = await runOnce(async () => {
      setFailures([]);
      form?.clearErrors();
      setSubmitting(true);
      try {
        return await send();
      } finally {
        setSubmitting(false);
      }
    });
    if (!result) {
      return null;
    }
    const payload = result.data && payloadOf(result.data);
    if (result.error || !payload) {
      setFailures([result.error ? describeError(result.error) : "The server sent no result."]);
      return null;
    }
    if (payload.errors.length === 0) {
      return payload;
    }
    const { fields, others } = groupErrors(payload.errors, form?.getValues() ?? {}, toField);
    form?.setErrors(fields);
    setFailures(others);
    return null;
  };
  return { failures, submitting, submit, clearFailures: useCallback(() => setFailures([]), []) };
}

/** Return a function that runs an action, or returns null while a previous action runs. */
export function createGate(): <Result>(action: () => Promise<Result>) => Promise<Result | null> {
  let running = false;
  return async (action) => {
    if (running) {
      return null;
    }
    running = true;
    try {
      return await action();
    } finally {
      running = false;
    }
  };
}

/** Separate the errors of fields that a form has from all others. */
export function groupErrors(
  errors: readonly MutationErrorFields[],
  values: object,
  toField: (path: string[]) => string,
): { fields: Record<string, string>; others: string[] } {
  const fields: Record<string, string> = {};
  const others: string[] = [];
  for (const error of errors) {
    const field = toField(error.path);
    if (hasField(values, field)) {
      // The message begins with the path, which the field shows already.
      fields[field] = error.message.replace(`${error.path.join(".")}: `, "");
    } else {
      others.push(error.message);
    }
  }
  return { fields, others };
}

function hasField(values: object, field: string): boolean {
  let value: unknown = values;
  for (const name of field.split(".")) {
    if (typeof value !== "object" || value === null || !(name in value)) {
      return false;
    }
    value = (value as Record<string, unknown>)[name];
  }
  return true;
}
