// Texts for numbers and times. Their words are English, as all others of the console. The browser's
// locale determines how numbers and dates are written, and the time zone.

/** The locale for texts with words, such as the names of months. */
export const WORDS_LOCALE = wordsLocale(new Intl.NumberFormat().resolvedOptions().locale);

/** The sign before the decimals, for inputs that show numbers as the texts do. */
export const DECIMAL_SEPARATOR =
  new Intl.NumberFormat().formatToParts(0.5).find(({ type }) => type === "decimal")?.value ?? ".";

const NUMBER = new Intl.NumberFormat();
const COMPACT = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
const TIME = timeFormat(undefined);
// "tomorrow" would be wrong for a time in 47 hours.
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "always" });

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

/** Return a short text for a large number: `1.35K`. The abbreviation is the English one. */
export function formatCompact(value: number, decimalSeparator = DECIMAL_SEPARATOR): string {
  return COMPACT.formatToParts(value)
    .map((part) => (part.type === "decimal" ? decimalSeparator : part.value))
    .join("");
}

/** Up to three decimals, as the server accepts: `12.5%`. */
export function formatPercent(value: number): string {
  return `${value.toLocaleString(undefined, { maximumFractionDigits: 3 })}%`;
}

export function formatTime(at: string): string {
  const time = Date.parse(at);
  return Number.isNaN(time) ? at : TIME.format(time);
}

/** Return a locale for texts with words: the browser's if it is English, such as `en-GB`. */
export function wordsLocale(locale: string): string {
  return isEnglish(locale) ? locale : "en";
}

/**
 * Return the format of times: with the name of the month in English, or else only with numbers.
 *
 * @param locale The browser's if undefined.
 */
export function timeFormat(locale: string | undefined): Intl.DateTimeFormat {
  const numeric = new Intl.DateTimeFormat(locale, {
    year: "numeric",
    month: "2-digit",
    day: "2-digit",
    hour: "2-digit",
    minute: "2-digit",
    second: "2-digit",
  });
  return isEnglish(numeric.resolvedOptions().locale)
    ? new Intl.DateTimeFormat(locale, { dateStyle: "medium", timeStyle: "medium" })
    : numeric;
}

function isEnglish(locale: string): boolean {
  return locale === "en" || locale.startsWith("en-");
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
