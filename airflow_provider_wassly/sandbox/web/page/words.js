// Wording of dates, sizes and names.

const LANGUAGE = "en-GB";
const CLOCK = new Intl.DateTimeFormat(LANGUAGE, { hour: "2-digit", minute: "2-digit" });
const WEEKDAY = new Intl.DateTimeFormat(LANGUAGE, { weekday: "long" });
const SHORT_DATE = new Intl.DateTimeFormat(LANGUAGE, { day: "numeric", month: "short", year: "numeric" });
const LONG_DATE = new Intl.DateTimeFormat(LANGUAGE, {
  weekday: "long",
  day: "numeric",
  month: "long",
  year: "numeric",
});
const NUMBER = new Intl.NumberFormat(LANGUAGE);
const DAY = 24 * 60 * 60 * 1000;

export const count = (number) => NUMBER.format(number);
export const counted = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;
export const clock = (date) => CLOCK.format(date);

function daysAgo(date) {
  const midnight = (moment) => new Date(moment.getFullYear(), moment.getMonth(), moment.getDate());
  return Math.round((midnight(new Date()) - midnight(date)) / DAY);
}

/** Format a day, for the line between messages. */
export function day(date) {
  return { 0: "Today", 1: "Yesterday" }[daysAgo(date)] ?? LONG_DATE.format(date);
}

/** Format a time for the contact list: the more recent, the more precise. */
export function moment(date) {
  const days = daysAgo(date);
  if (days === 0) {
    return clock(date);
  }
  if (days === 1) {
    return "Yesterday";
  }
  return days > 1 && days < 7 ? WEEKDAY.format(date) : SHORT_DATE.format(date);
}

export function size(bytes) {
  if (bytes < 1000) {
    return counted(bytes, "byte");
  }
  const units = ["kB", "MB", "GB", "TB"];
  let value = bytes / 1000;
  while (value >= 999.5 && units.length > 1) {
    value /= 1000;
    units.shift();
  }
  return `${value < 9.95 ? value.toFixed(1) : Math.round(value)} ${units[0]}`;
}

/** The contact's name, or the number without one. */
export function title(contact) {
  return contact.contact_name?.trim() || contact.contact_mobile_number;
}

/** The initials of a name's first and last word; `""` without a name. */
export function initials(name) {
  const words = (name ?? "")
    .split(/\s+/u)
    .map((word) => word.match(/[\p{L}\p{N}]/u)?.[0])
    .filter(Boolean);
  // A zero-width non-joiner keeps Arabic letters from joining into a word.
  return words.length > 1 ? `${words[0]}\u200c${words.at(-1)}`.toUpperCase() : (words[0] ?? "").toUpperCase();
}
