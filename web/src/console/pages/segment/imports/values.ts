// The values of the form "Import a list", and the input of `createImport` that they make.

import {
  END_FIELDS,
  INITIAL_END,
  type MembershipEnd,
  toMembershipEndInput,
  validateEnd,
} from "../../../components/membership-end";
import type {
  CreateImportInput,
  Delimiter,
  HeaderMode,
  Identity,
  ImportMode,
  ImportSource,
  OnExcluded,
  OnExisting,
  OnUnknownUser,
} from "../../../graphql/operations";

export interface ImportValues extends MembershipEnd {
  source: "file" | "segments";
  file: File | null;
  identity: Identity;
  anyOf: string[];
  allOf: string[];
  noneOf: string[];
  asOf: string;
  mode: ImportMode;
  onExisting: OnExisting;
  onExcluded: OnExcluded;
  onUnknownUser: OnUnknownUser;
  exclude: boolean;
  maxRejected: number | string;
  maxRemovedPercent: number | string;
  allowEmpty: boolean;
  column: string;
  columnNumber: number | string;
  header: HeaderMode;
  delimiter: Delimiter;
  dryRun: boolean;
}

export const INITIAL_VALUES: ImportValues = {
  source: "file",
  file: null,
  identity: "ID",
  anyOf: [],
  allOf: [],
  noneOf: [],
  asOf: "",
  mode: "ADD",
  ...INITIAL_END,
  onExisting: "EXTEND",
  onExcluded: "SKIP",
  onUnknownUser: "STORE",
  exclude: true,
  maxRejected: 0,
  maxRemovedPercent: 20,
  allowEmpty: false,
  column: "",
  columnNumber: "",
  header: "AUTO",
  delimiter: "AUTO",
  dryRun: true,
};

/** Return the errors that the form finds before it sends a request. */
export function validate(values: ImportValues): Partial<Record<keyof ImportValues, string | null>> {
  const errors: Partial<Record<keyof ImportValues, string | null>> =
    values.mode === "REMOVE" ? {} : validateEnd(values);
  if (values.source === "file" && !values.file) {
    errors.file = "Choose a file.";
  } else if (values.source === "file" && values.file?.size === 0 && !acceptsEmptyList(values)) {
    errors.file = "The file is empty.";
  }
  for (const field of ["maxRejected", "maxRemovedPercent"] as const) {
    if (!isNumberOrEmpty(values[field])) {
      errors[field] = "Enter a number.";
    }
  }
  if (values.source === "segments" && values.anyOf.length + values.allOf.length === 0) {
    errors.anyOf = "Choose a segment here, or in the next field.";
  }
  return errors;
}

/** Whether an empty list is meant to remove all members. */
function acceptsEmptyList({ mode, allowEmpty }: ImportValues): boolean {
  return mode === "REPLACE" && allowEmpty;
}

/** Whether the value of a number input is complete: "-" is not. */
function isNumberOrEmpty(value: number | string): boolean {
  return value === "" || Number.isFinite(Number(value));
}

export function toInput(slug: string, values: ImportValues): CreateImportInput {
  const isFile = values.source === "file";
  const adds = values.mode !== "REMOVE";
  return {
    slug,
    source: toSource(values),
    mode: values.mode,
    dryRun: values.dryRun,
    ...(isFile && {
      identity: values.identity,
      column: values.column.trim() || undefined,
      columnNumber: numberOf(values.columnNumber),
      header: values.header,
      delimiter: values.delimiter,
      maxRejected: numberOf(values.maxRejected) ?? 0,
    }),
    ...(adds
      ? {
          ...toMembershipEndInput(values),
          onExisting: values.onExisting,
          onExcluded: values.onExcluded,
          onUnknownUser: values.onUnknownUser,
        }
      : { exclude: values.exclude }),
    ...(values.mode !== "ADD" && {
      maxRemovedPercent: numberOf(values.maxRemovedPercent),
    }),
    ...(values.mode === "REPLACE" && { allowEmpty: values.allowEmpty }),
  };
}

function toSource(values: ImportValues): ImportSource {
  if (values.source === "file" && values.file) {
    // The server keeps at most 255 characters of the name.
    const fileName = values.file.name.slice(0, 255) || undefined;
    return { upload: { fileName, sizeBytes: values.file.size } };
  }
  return {
    segments: {
      anyOf: listOf(values.anyOf),
      allOf: listOf(values.allOf),
      noneOf: listOf(values.noneOf),
      asOf: values.asOf || undefined,
    },
  };
}

function listOf(slugs: string[]): string[] | undefined {
  return slugs.length > 0 ? slugs : undefined;
}

function numberOf(value: number | string): number | undefined {
  return value === "" ? undefined : Number(value);
}

/** Return the field of the form for a path into the input of `createImport`. */
export function toField(path: readonly string[]): string {
  const [first = "", second, third] = path;
  if (first === "source") {
    return second === "upload" ? "file" : (third ?? "anyOf");
  }
  return first === "ttlSeconds" ? END_FIELDS.ttlSeconds : first;
}
