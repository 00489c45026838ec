import { DateTimeInput } from "./date-time-input";

export interface DateRange {
  /** An RFC 3339 time, or an empty text. */
  from: string;
  to: string;
}

export function isReversed({ from, to }: DateRange): boolean {
  return !!from && !!to && Date.parse(from) > Date.parse(to);
}

interface Props {
  value: DateRange;
  onChange: (value: DateRange) => void;
}

/** The inputs "From" and "Before", in the browser's time zone. */
export function DateRangeInputs({ value, onChange }: Props) {
  return (
    <>
      <DateTimeInput
        label="From"
        value={value.from}
        onChange={(from) => onChange({ ...value, from })}
      />
      <DateTimeInput
        label="Before"
        value={value.to}
        error={isReversed(value) && "This time is before “From”."}
        onChange={(to) => onChange({ ...value, to })}
      />
    </>
  );
}
