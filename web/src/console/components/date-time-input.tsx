import { TextInput, type TextInputProps } from "@mantine/core";

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
            value={toLocal(value)}
            onChange={(event) => {
                const entered = event.currentTarget.value;
                onChange(entered && new Date(entered).toISOString());
            }}
        />
    );
}

/** Return a time as `<input type="datetime-local">` needs it: local, without an offset. */
export function toLocal(at: string): string {
    if (!at) {
        return "";
    }
    const date = new Date(at);
    const offset = date.getTimezoneOffset() * 60_000;
    return new Date(date.getTime() - offset).toISOString().slice(0, 19);
}
