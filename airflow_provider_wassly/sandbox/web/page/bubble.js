// A message's bubble.

import { attachments } from "./attachments.js";
import { el } from "./dom.js";
import { formatted } from "./formatting.js";
import { clock, count } from "./words.js";

/** Many times WhatsApp's limit; a page full of longer texts would be slow. */
const MAX_TEXT = 20_000;

export function bubble(message) {
  const received = new Date(message.received_at);
  return el(
    "article",
    { class: "bubble", "data-id": message.id },
    ...attachments(message),
    message.message ? text(message.message) : null,
    el(
      "footer",
      {},
      el(
        "span",
        { class: "instance", dir: "auto", title: `Sent from instance ${message.instance_id}` },
        message.instance_id,
      ),
      el(
        "a",
        { href: `/sandbox/messages/${message.id}`, target: "_blank", title: "This message as JSON" },
        `#${message.id}`,
      ),
      el("time", { datetime: message.received_at, title: received.toString() }, clock(received)),
    ),
  );
}

function text(whole) {
  const box = el("div", { class: "text" });
  if (whole.length <= MAX_TEXT) {
    box.append(formatted(whole));
    return box;
  }
  const show = () => box.replaceChildren(formatted(whole));
  box.append(
    formatted(whole.slice(0, MAX_TEXT)),
    el("button", { type: "button", class: "button small", click: show }, `Show all ${count(whole.length)} characters`),
  );
  return box;
}
