// The URL fragment, which says which chat is open.

/** The address of a chat. */
export function addressOf(number) {
  return `#${encodeURIComponent(number).replaceAll("%2B", "+")}`;
}

/** The number whose chat is open; `null` for none. */
export function openNumber() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || null;
  } catch {
    return null;
  }
}
