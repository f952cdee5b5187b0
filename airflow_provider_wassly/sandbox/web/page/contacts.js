// The contact list.

import * as api from "./api.js";
import { kindOf } from "./attachments.js";
import { avatar } from "./avatar.js";
import { byId, el, icon } from "./dom.js";
import { preview } from "./formatting.js";
import { addressOf } from "./place.js";
import { count, counted, moment, title } from "./words.js";

const PAGE = 100;
/** Rows to keep when new ones arrive, unless the user has scrolled down. */
const MOST = 300;
const NEAR = 600;

export class Contacts {
  constructor() {
    this.pane = byId("contacts");
    this.list = byId("contact-list");
    this.hint = byId("contacts-hint");
    this.rows = new Map(); // number -> row, in list order
    this.more = false;
    this.turn = 0;
    this.loading = false;
    this.open = null;
    this.seen = null; // id of the newest message when the page was loaded; newer ones are marked
    this.pane.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.list.addEventListener("keydown", (event) => this.move(event));
    this.list.addEventListener("focusin", (event) => this.beReachable(event.target.closest("a")));
  }

  /** Reload the list. */
  async reload() {
    this.turn++;
    const page = await api.contacts({ limit: PAGE });
    this.seen ??= page.contacts[0]?.last.id ?? 0;
    this.show(page.contacts, page.more);
  }

  /**
   * Bring the list up to date.
   *
   * @param known id of the newest message that the list includes.
   */
  async update(known) {
    this.turn++;
    const page = await api.contacts({ limit: PAGE });
    const oldest = page.contacts.at(-1)?.last.id ?? 0;
    if (!page.more || oldest > known) {
      // These are all contacts, or there is a gap between them and the ones shown.
      this.show(page.contacts, page.more);
      return;
    }
    const found = new Set(page.contacts.map((contact) => contact.contact_mobile_number));
    const rest = this.shown.filter((contact) => contact.last.id < oldest && !found.has(contact.contact_mobile_number));
    const all = [...page.contacts, ...rest];
    const scrolled = this.pane.scrollTop > this.pane.clientHeight;
    this.show(scrolled ? all : all.slice(0, MOST), this.more || (!scrolled && all.length > MOST) || !this.rows.size);
  }

  /** The contacts shown. */
  get shown() {
    return [...this.rows.values()].map((row) => row.contact);
  }

  /** Return the contact with a number; `undefined` if it is not in the list. */
  find(number) {
    return this.rows.get(number)?.contact;
  }

  /** Mark the contact whose chat is open; `null` for none. */
  select(number) {
    const before = this.rows.get(this.open);
    this.open = number;
    before?.refresh(this);
    const row = this.rows.get(number);
    if (row) {
      row.seen = row.contact.last.id;
      row.refresh(this);
      this.beReachable(row.link);
    }
  }

  /** Focus a contact. */
  focus(number) {
    (this.rows.get(number)?.link ?? this.list.querySelector("a"))?.focus();
  }

  show(contacts, more) {
    const focused = document.activeElement;
    const before = this.rows;
    this.rows = new Map();
    let place = this.list.firstElementChild;
    for (const contact of contacts) {
      const number = contact.contact_mobile_number;
      const row = before.get(number) ?? new Row(number);
      before.delete(number);
      this.rows.set(number, row);
      if (row.element === place) {
        place = place.nextElementSibling;
      } else {
        this.list.insertBefore(row.element, place);
      }
      if (number === this.open) {
        row.seen = contact.last.id;
      }
      row.update(contact, this);
    }
    for (const row of before.values()) {
      row.element.remove();
    }
    this.more = more;
    this.hint.hidden = this.rows.size > 0;
    this.hint.textContent = "No messages yet";
    if (!this.list.querySelector('a[tabindex="0"]')) {
      this.beReachable(this.list.querySelector("a"));
    }
    if (focused !== document.activeElement && this.list.contains(focused)) {
      focused.focus({ preventScroll: true }); // moving an element takes its focus
    }
    this.scrolled();
  }

  async scrolled() {
    const below = this.pane.scrollHeight - this.pane.scrollTop - this.pane.clientHeight;
    if (this.loading || !this.more || below > NEAR || !this.pane.clientHeight) {
      return;
    }
    this.loading = true;
    const turn = this.turn;
    try {
      const page = await api.contacts({ before: this.shown.at(-1).last.id, limit: PAGE });
      if (turn === this.turn) {
        const added = page.contacts.filter((contact) => !this.rows.has(contact.contact_mobile_number));
        this.show([...this.shown, ...added], page.more);
      }
    } catch {
      return; // the next scroll event tries again
    } finally {
      this.loading = false;
    }
    this.scrolled();
  }

  /** Let the Tab key reach only this row; the arrow keys reach the others. */
  beReachable(link) {
    for (const other of this.list.querySelectorAll('a[tabindex="0"]')) {
      other.tabIndex = -1;
    }
    if (link) {
      link.tabIndex = 0;
    }
  }

  move(event) {
    const item = event.target.closest("li");
    const target = {
      ArrowDown: item?.nextElementSibling,
      ArrowUp: item?.previousElementSibling,
      Home: this.list.firstElementChild,
      End: this.list.lastElementChild,
    }[event.key];
    if (target && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      target.querySelector("a").focus();
    }
  }
}

class Row {
  constructor(number) {
    this.contact = null;
    this.seen = null;
    this.link = el("a", { href: addressOf(number), tabindex: "-1" });
    this.element = el("li", {}, this.link);
  }

  update(contact, list) {
    const before = this.contact;
    this.contact = contact;
    if (before?.last.id !== contact.last.id || before.messages !== contact.messages) {
      const attached = kindOf(contact.last);
      const words = contact.last.message ? preview(contact.last.message) : (attached?.[1] ?? "");
      const received = new Date(contact.last.received_at);
      this.count = el("span", { class: "count", title: counted(contact.messages, "message") }, count(contact.messages));
      this.link.replaceChildren(
        avatar(contact),
        el("span", { class: "name", dir: "auto" }, title(contact)),
        el("time", { datetime: contact.last.received_at }, moment(received)),
        el("span", { class: "preview" }, attached ? icon(attached[0]) : null, el("span", { dir: "auto" }, words)),
        this.count,
      );
    }
    this.refresh(list);
  }

  refresh(list) {
    const isOpen = list.open === this.contact.contact_mobile_number;
    const isNew = !isOpen && this.contact.last.id > Math.max(list.seen, this.seen ?? 0);
    if (isOpen) {
      this.link.setAttribute("aria-current", "true");
    } else {
      this.link.removeAttribute("aria-current");
    }
    this.link.classList.toggle("new", isNew);
  }
}
