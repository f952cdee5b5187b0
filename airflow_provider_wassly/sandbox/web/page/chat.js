// The open chat: a window over its messages that moves as the user scrolls and holds at most MOST of them.

import * as api from "./api.js";
import { avatar } from "./avatar.js";
import { bubble } from "./bubble.js";
import { byId, el, icon } from "./dom.js";
import { counted, day, title } from "./words.js";

const PAGE = 50;
const MOST = 300;
/** Pixels from the end of the window: within NEAR more is loaded, within AT_END the end counts as reached. */
const NEAR = 500;
const AT_END = 40;

export class Chat {
  constructor() {
    this.log = byId("log");
    this.list = byId("messages");
    this.hint = byId("log-hint");
    this.button = byId("newer");
    this.number = null;
    this.contact = undefined;
    this.entries = []; // {message, element}, oldest first
    this.turn = 0; // incremented for each new window; answers to earlier requests are then discarded
    this.loading = false;
    this.begin();
    this.log.addEventListener("scroll", () => this.scrolled(), { passive: true });
    this.button.addEventListener("click", () => this.toNewest());
    const sizes = new ResizeObserver(() => this.followsNewest && this.toEnd());
    sizes.observe(this.log);
    sizes.observe(this.list);
  }

  begin() {
    this.turn++;
    this.entries = [];
    this.hasOlder = false;
    this.hasNewer = false;
    this.followsNewest = true; // whether the end is visible and stays visible
    this.waiting = 0; // unseen new messages further down
  }

  /** Show the chat with a number. */
  async open(number) {
    this.number = number;
    this.begin();
    this.draw();
    this.showContact(undefined);
    await this.reload();
  }

  close() {
    this.number = null;
    this.begin();
    this.draw();
  }

  /** Replace the shown messages with the newest ones. */
  async reload() {
    if (this.number === null) {
      return;
    }
    const turn = ++this.turn;
    let page;
    try {
      page = await api.newestMessages(this.number, PAGE);
    } catch (error) {
      if (turn === this.turn && !this.entries.length) {
        this.say(error.message);
      }
      throw error;
    }
    if (turn !== this.turn) {
      return;
    }
    this.begin();
    this.hasOlder = page.more;
    this.entries = page.messages.map(entry);
    this.draw();
    this.say(this.entries.length ? "" : "No messages to this number");
    this.toEnd();
  }

  /**
   * Append new messages.
   *
   * @param contact the contact's current data, if known.
   */
  async update(contact) {
    await this.loading;
    if (this.number === null) {
      return;
    }
    if (!this.entries.length) {
      await this.reload();
      return;
    }
    if (this.hasNewer) {
      this.waiting += Math.max(0, (contact?.messages ?? 0) - (this.contact?.messages ?? 0));
      this.showButton();
      return;
    }
    const turn = this.turn;
    const page = await api.messagesAfter(this.number, this.newest, PAGE);
    if (turn !== this.turn || !page.messages.length) {
      return;
    }
    if (this.followsNewest) {
      if (page.more) {
        await this.reload();
        return;
      }
      this.change(() => this.append(page));
      this.toEnd();
      return;
    }
    // The user is reading further up: append as many as fit, without moving what is visible.
    this.waiting += page.messages.length;
    const room = MOST - this.entries.length;
    this.append({ messages: page.messages.slice(0, room), more: page.more || page.messages.length > room });
    this.showButton();
  }

  get newest() {
    return this.entries.at(-1)?.message.id ?? 0;
  }

  /** Show the contact's data; if it is unknown, take the name from the messages. */
  showContact(contact) {
    this.contact = contact;
    const known = contact ?? {
      contact_mobile_number: this.number,
      contact_name: this.entries.findLast(({ message }) => message.contact_name)?.message.contact_name,
    };
    const name = title(known);
    const facts = [known.messages && counted(known.messages, "message")];
    if (name !== known.contact_mobile_number) {
      facts.unshift(known.contact_mobile_number);
    }
    byId("chat-avatar").replaceChildren(avatar(known));
    byId("chat-name").replaceChildren(el("bdi", {}, name));
    byId("chat-number").textContent = facts.filter(Boolean).join(" · ");
  }

  draw() {
    this.list.replaceChildren(...this.entries.map(({ element }) => element));
    this.markDays();
    this.say("");
    this.showButton();
  }

  say(text) {
    this.hint.textContent = text;
    this.hint.hidden = !text;
  }

  append({ messages, more }) {
    const added = messages.map(entry);
    this.entries.push(...added);
    this.list.append(...added.map(({ element }) => element));
    this.hasNewer = more;
    this.markDays();
  }

  /** Change the window without moving what is visible, and remove the surplus at the far end. */
  change(act, farEnd = "start") {
    const fixed = (farEnd === "start" ? this.entries.at(-1) : this.entries[0]).element.lastElementChild;
    const before = fixed.getBoundingClientRect().top;
    this.log.style.overflowAnchor = "none"; // otherwise the browser would adjust the position too
    act();
    const surplus = this.entries.length - MOST;
    if (surplus > 0) {
      const removed = farEnd === "start" ? this.entries.splice(0, surplus) : this.entries.splice(-surplus);
      for (const { element } of removed) {
        element.remove();
      }
      if (farEnd === "start") {
        this.hasOlder = true;
      } else {
        this.hasNewer = true;
        this.followsNewest = false;
      }
      this.markDays();
    }
    this.log.scrollTop += fixed.getBoundingClientRect().top - before;
    requestAnimationFrame(() => (this.log.style.overflowAnchor = ""));
  }

  async load(fetchPage, show) {
    const turn = this.turn;
    const work = fetchPage().then((page) => turn === this.turn && show(page));
    this.loading = work.catch(() => null); // the next scroll event tries again
    try {
      await work;
    } catch {
      return;
    } finally {
      this.loading = false;
    }
    requestAnimationFrame(() => this.scrolled());
  }

  loadOlder() {
    const show = (page) =>
      this.change(() => {
        const added = page.messages.map(entry);
        this.entries.unshift(...added);
        this.list.prepend(...added.map(({ element }) => element));
        this.hasOlder = page.more;
        this.markDays();
      }, "end");
    return this.load(() => api.messagesBefore(this.number, this.entries[0].message.id, PAGE), show);
  }

  loadNewer() {
    const show = (page) => this.change(() => this.append(page));
    return this.load(() => api.messagesAfter(this.number, this.newest, PAGE), show);
  }

  scrolled() {
    const above = this.log.scrollTop;
    const below = this.log.scrollHeight - above - this.log.clientHeight;
    this.followsNewest = !this.hasNewer && below < AT_END;
    this.showButton();
    if (this.loading || !this.entries.length || !this.log.clientHeight) {
      return;
    }
    if (this.hasOlder && above < NEAR) {
      this.loadOlder();
    } else if (this.hasNewer && below < NEAR) {
      this.loadNewer();
    }
  }

  showButton() {
    if (this.followsNewest) {
      this.waiting = 0;
    }
    this.button.hidden = this.followsNewest || this.number === null;
    const label = this.waiting ? counted(this.waiting, "new message") : "Jump to latest";
    this.button.replaceChildren(icon("down"), label);
    this.button.classList.toggle("has-new", this.waiting > 0);
  }

  async toNewest() {
    if (this.hasNewer) {
      await this.reload();
    } else {
      this.toEnd();
    }
    this.log.focus({ preventScroll: true });
  }

  toEnd() {
    this.log.scrollTop = this.log.scrollHeight;
  }

  /** Insert a line between messages of different days. */
  markDays() {
    let before = null;
    for (const { message, element } of this.entries) {
      const date = new Date(message.received_at);
      const key = date.toDateString();
      const line = element.querySelector(":scope > .day");
      if (key === before) {
        line?.remove();
      } else if (!line) {
        element.prepend(el("p", { class: "day" }, el("span", {}, day(date))));
      }
      before = key;
    }
  }
}

function entry(message) {
  return { message, element: el("li", {}, bubble(message)) };
}
