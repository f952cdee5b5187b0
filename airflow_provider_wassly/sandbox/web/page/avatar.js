// A contact's round avatar.

import { el, icon } from "./dom.js";
import { initials } from "./words.js";

const HUES = 8;

export function avatar(contact) {
  const letters = initials(contact.contact_name);
  let hash = 0;
  for (const character of contact.contact_mobile_number) {
    hash = (hash * 31 + character.codePointAt(0)) >>> 0;
  }
  return el("span", { class: "avatar", "data-hue": hash % HUES, "aria-hidden": "true" }, letters || icon("person"));
}
