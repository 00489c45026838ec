// Texts for numbers and times, in the browser's language and time zone.

const NUMBER = new Intl.NumberFormat();
const TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
// "tomorrow" would be wrong for a time in 47 hours.
const RELATIVE = new Intl.RelativeTimeFormat(undefined, { numeric: "always" });

const UNITS: readonly [Intl.RelativeTimeFormatUnit, number][] = [
    ["year", 31_536_000],
    ["month", 2_592_000],
    ["day", 86_400],
    ["hour", 3_600],
    ["minute", 60],
];

export function formatNumber(value: number): string {
    return NUMBER.format(value);
}

/** Up to three decimals, as the server accepts: `12.5%`. */
export function formatPercent(value: number): string {
    return `${value.toLocaleString(undefined, { maximumFractionDigits: 3 })}%`;
}

export function formatTime(at: string): string {
    return TIME.format(new Date(at));
}

/** Return a text such as "3 hours ago" or "in 2 days". */
export function relativeTime(at: string, now: number = Date.now()): string {
    const seconds = (Date.parse(at) - now) / 1000;
    for (const [unit, length] of UNITS) {
        if (Math.abs(seconds) >= length) {
            return RELATIVE.format(Math.trunc(seconds / length), unit);
        }
    }
    return RELATIVE.format(Math.trunc(seconds), "second");
}

/** Return a size in bytes as text: `1.5 MB`. */
export function formatBytes(bytes: number): string {
    const units = ["B", "kB", "MB", "GB"];
    const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), units.length - 1);
    const value = bytes / 1000 ** power;
    return `${value.toLocaleString(undefined, { maximumFractionDigits: 1 })} ${units[power]}`;
}
