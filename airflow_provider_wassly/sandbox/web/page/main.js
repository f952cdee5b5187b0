// The page: decides what is open, and passes the sandbox's state to its parts.

import { Chat } from "./chat.js";
import { Contacts } from "./contacts.js";
import { byId, icon } from "./dom.js";
import { showState } from "./header.js";
import { follow } from "./live.js";
import { Panel } from "./panel.js";
import { openNumber } from "./place.js";
import { fillWelcome } from "./welcome.js";
import { counted, title } from "./words.js";

/** Milliseconds: between announcements to a screen reader, and before retrying after a failure. */
const ANNOUNCE_EVERY = 5000;
const TRY_AGAIN = 2000;

const contacts = new Contacts();
const chat = new Chat();
const panel = new Panel(() => contacts.shown);

let state = null; // the newest state
let shown = null; // the state that contacts and chat show; null if they may be out of date
let working = false;

function onState(news, missedSome) {
  state = news;
  if (missedSome) {
    shown = null;
  }
  showState(news);
  panel.showState(news);
  work();
}

/** Bring contacts and chat up to the newest state, one update at a time. */
async function work() {
  if (working) {
    return;
  }
  working = true;
  try {
    while (shown !== state) {
      const target = state;
      await (shown && !forgot(shown, target) ? update(shown, target) : reload());
      shown = target;
      showPlace();
    }
  } catch {
    shown = null;
    setTimeout(work, TRY_AGAIN);
  } finally {
    working = false;
  }
}

/** Whether messages were deleted for another reason than to make room. */
function forgot(before, after) {
  const expected = before.messages + after.last_message - before.last_message;
  return after.last_message < before.last_message || after.messages < Math.min(expected, after.max_messages);
}

async function reload() {
  await Promise.all([contacts.reload(), chat.reload()]);
  if (chat.number !== null) {
    chat.showContact(contacts.find(chat.number));
  }
}

async function update(before, after) {
  if (before.last_message === after.last_message) {
    return;
  }
  await contacts.update(before.last_message);
  if (chat.number !== null) {
    const contact = contacts.find(chat.number);
    await chat.update(contact);
    chat.showContact(contact);
  }
  announce(after.last_message - before.last_message);
}

const news = { messages: 0, timer: 0 };

function announce(messages) {
  news.messages += messages;
  if (news.timer) {
    return;
  }
  const say = () => {
    news.timer = 0;
    if (!news.messages) {
      return;
    }
    const newest = contacts.shown[0];
    const name = newest ? ` to ${title(newest)}` : "";
    byId("announcer").textContent = news.messages === 1 ? `New message${name}` : counted(news.messages, "new message");
    news.messages = 0;
    news.timer = setTimeout(say, ANNOUNCE_EVERY);
  };
  say();
}

/** Show the part of the page that the address and the state ask for. */
function showPlace() {
  const isEmpty = state !== null && state.messages === 0;
  if (isEmpty) {
    fillWelcome(state);
  }
  byId("welcome").hidden = !isEmpty;
  byId("conversation").hidden = isEmpty || chat.number === null;
  byId("choose").hidden = isEmpty || chat.number !== null || state === null;
  document.body.dataset.view = isEmpty || chat.number !== null ? "chat" : "list";
  if (!byId("conversation").hidden && chat.followsNewest) {
    chat.toEnd();
  }
}

async function openPlace() {
  const number = openNumber();
  const before = chat.number;
  if (number === before) {
    return;
  }
  contacts.select(number);
  if (number === null) {
    chat.close();
    showPlace();
    contacts.focus(before);
    return;
  }
  const opened = chat.open(number);
  chat.showContact(contacts.find(number));
  showPlace();
  if (before !== null || state !== null) {
    byId("chat-name").focus({ preventScroll: true });
  }
  try {
    await opened;
  } catch {
    return; // the chat shows the error
  }
  chat.showContact(contacts.find(number));
}

byId("back").append(icon("back"));
window.addEventListener("hashchange", openPlace);
for (const button of document.querySelectorAll("[data-copies]")) {
  button.hidden = !navigator.clipboard;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(byId(button.dataset.copies).textContent);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
}
openPlace();
follow(onState, (connected) => (byId("offline").hidden = connected));
