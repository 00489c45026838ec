import { TextInput, type TextInputProps } from "@mantine/core";

/** The server accepts no later year. */
const MAX_LOCAL = "9999-12-31T23:59:59";

interface DateTimeInputProps extends Omit<TextInputProps, "value" | "onChange"> {
  /** An RFC 3339 time, or an empty text. */
  value: string;
  onChange: (value: string) => void;
}

/** A time, entered in the browser's time zone. */
export function DateTimeInput({ value, onChange, ...props }: DateTimeInputProps) {
  return (
    <TextInput
      {...props}
      type="datetime-local"
      step={1}
      max={MAX_LOCAL}
      value={toLocal(value)}
      onChange={(event) => {
        const at = fromLocal(event.currentTarget.value);
        if (at !== null) {
          onChange(at);
        }
      }}
    />
  );
}

/**
 * Return a time as `<input type="datetime-local">` needs it: local, without an offset. Empty if the
 * text is not a time of the years that the input accepts.
 */
export function toLocal(at: string): string {
  const date = new Date(at);
  const local = new Date(date.getTime() - date.getTimezoneOffset() * 60_000);
  const text = Number.isNaN(local.getTime()) ? "" : local.toISOString().slice(0, 19);
  return /^\d{4}-/.test(text) ? text : "";
}

/** Return the time that was entered in UTC, an empty text if none was, or null if it is invalid. */
export function fromLocal(entered: string): string | null {
  if (!entered) {
    return "";
  }
  const date = new Date(entered);
  return entered.length > MAX_LOCAL.length || Number.isNaN(date.getTime())
    ? null
    : date.toISOString();
}
