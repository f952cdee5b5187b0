// The chaos panel: simulates failures, and sets quota, latency and devices.

import * as api from "./api.js";
import { byId, el, icon } from "./dom.js";
import { count, counted, title } from "./words.js";

const ENDPOINTS = { send: "send", login: "login", devices: "device list" };
/** How long a destructive button waits for the confirming click, in milliseconds. */
const SECOND_CLICK = 4000;

export class Panel {
  /**
   * @param contacts returns the contacts to suggest as recipients.
   */
  constructor(contacts) {
    this.contacts = contacts;
    this.element = byId("panel");
    this.button = byId("chaos-button");
    this.state = null;
    this.rules = [];
    this.kinds = new Map(); // name -> row
    this.narrow = matchMedia("(max-width: 900px)");
    byId("panel-close").append(icon("close"));
    this.button.addEventListener("click", () => this.toggle(this.element.hidden));
    byId("panel-close").addEventListener("click", () => this.toggle(false));
    this.element.addEventListener("keydown", (event) => event.key === "Escape" && this.toggle(false));
    this.narrow.addEventListener("change", () => this.cover());
    this.listen();
  }

  get isOpen() {
    return !this.element.hidden;
  }

  toggle(open) {
    this.element.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    document.body.toggleAttribute("data-panel", open);
    this.cover();
    if (open) {
      byId("panel-title").focus();
      this.fail("");
      this.showState(this.state);
      this.suggestNumbers();
    } else {
      this.button.focus();
    }
  }

  /** Where the panel covers the page, make what is below it inert. */
  cover() {
    for (const id of ["top", "contacts", "chat"]) {
      byId(id).inert = this.isOpen && this.narrow.matches;
    }
  }

  /** Show the sandbox's state. */
  showState(state) {
    this.state = state;
    if (!state || !this.isOpen) {
      return;
    }
    for (const name of ["conversations", "latency"]) {
      const input = byId(name === "latency" ? "latency" : "quota");
      // Do not overwrite what the user is typing.
      if (document.activeElement !== input || input.value === "") {
        input.value = state[name];
      }
    }
    this.showDevices(state.devices);
    byId("counters").textContent = [
      counted(state.messages, "message"),
      counted(state.calls, "call"),
      counted(state.logins, "login"),
    ].join(" · ");
    this.attempt(() => this.refreshRules());
  }

  listen() {
    const on = (id, type, act) =>
      byId(id).addEventListener(type, (event) => {
        event.preventDefault();
        this.attempt(act);
      });
    const number = (id) => (byId(id).value === "" ? null : Number(byId(id).value));
    on("quota-form", "submit", () => this.configure({ conversations: number("quota") }));
    on("quota-none", "click", () => this.configure({ conversations: 0 }));
    for (const button of document.querySelectorAll("[data-top-up]")) {
      const more = Number(button.dataset.topUp);
      button.addEventListener("click", () =>
        this.attempt(() => this.configure({ conversations: this.state.conversations + more })),
      );
    }
    on("latency-form", "submit", () => this.configure({ latency: number("latency") }));
    on("rules-clear", "click", () => this.after(api.clearFaults()));
    on("tokens-expire", "click", () => this.expireTokens());
    this.twice("messages-delete", "Really delete?", () => api.deleteMessages());
    this.twice("reset", "Really reset?", () => api.reset());
    byId("scope").addEventListener("input", (event) => {
      if (event.target.id === "times" || event.target.id === "share") {
        byId(`how-${event.target.id}`).checked = true;
      }
      this.showKinds();
    });
  }

  /** Do something; show an error in the panel if it fails. */
  async attempt(act) {
    try {
      await act();
      return true;
    } catch (error) {
      this.fail(error.message);
      return false;
    }
  }

  fail(text) {
    byId("panel-error").textContent = text;
  }

  async configure(settings) {
    const state = await api.configure(settings);
    this.fail("");
    byId("quota").value = state.conversations;
    byId("latency").value = state.latency;
    this.state = { ...this.state, ...state };
  }

  async after(call) {
    await call;
    this.fail("");
    await this.refreshRules();
  }

  async expireTokens() {
    await api.expireTokens();
    this.fail("");
    const button = byId("tokens-expire");
    button.textContent = "Expired";
    setTimeout(() => (button.textContent = "Expire tokens"), 1500);
  }

  twice(id, question, act) {
    const button = byId(id);
    const label = button.textContent;
    let timer = 0;
    const calm = () => {
      clearTimeout(timer);
      button.textContent = label;
      button.classList.remove("danger");
    };
    button.addEventListener("click", async () => {
      if (!button.classList.contains("danger")) {
        button.textContent = question;
        button.classList.add("danger");
        timer = setTimeout(calm, SECOND_CLICK);
        return;
      }
      calm();
      await this.attempt(() => this.after(act()));
    });
    button.addEventListener("blur", calm);
  }

  showDevices(devices) {
    const shown = JSON.stringify(devices);
    if (shown === this.shownDevices) {
      return;
    }
    this.shownDevices = shown;
    const focused = document.activeElement?.dataset?.instance;
    byId("device-rows").replaceChildren(...devices.map((device) => this.device(device)));
    if (focused !== undefined) {
      byId("device-rows")
        .querySelector(`[data-instance="${CSS.escape(focused)}"]`)
        ?.focus();
    }
  }

  device({ name, status, instance_id }) {
    const verb = status === "connected" ? "disconnect" : "connect";
    const label = verb === "connect" ? "Connect" : "Disconnect";
    const act = () => this.attempt(async () => this.after(api.setDevice(instance_id, verb)));
    return el(
      "li",
      {},
      el("span", { class: "dot", "data-status": status }),
      el(
        "span",
        { class: "about" },
        el("span", { class: "name", dir: "auto" }, name || instance_id),
        el("span", { class: "details" }, el("bdi", {}, instance_id), ` · ${status}`),
      ),
      el(
        "button",
        {
          type: "button",
          class: "button small",
          "data-instance": instance_id,
          "aria-label": `${label} ${instance_id}`,
          click: act,
        },
        label,
      ),
    );
  }

  suggestNumbers() {
    const options = this.contacts().map((contact) =>
      el("option", { value: contact.contact_mobile_number }, title(contact)),
    );
    byId("numbers").replaceChildren(...options);
  }

  // Rules

  async refreshRules() {
    const { faults, kinds } = await api.faults();
    if (!this.kinds.size) {
      for (const [name, kind] of Object.entries(kinds)) {
        this.kinds.set(name, this.kind(name, kind));
      }
      byId("kinds").replaceChildren(...[...this.kinds.values()].map(({ element }) => element));
    }
    if (JSON.stringify(faults) !== JSON.stringify(this.rules)) {
      this.rules = faults;
      const index = [...byId("rules").children].findIndex((row) => row.contains(document.activeElement));
      const hadFocus = index >= 0 || document.activeElement === byId("rules-clear");
      byId("rules").replaceChildren(...faults.map((rule) => this.rule(rule)));
      byId("rules-section").hidden = !faults.length;
      if (hadFocus && !(document.activeElement === byId("rules-clear") && faults.length)) {
        const next = byId("rules").children[Math.min(index, faults.length - 1)];
        (next?.querySelector("button") ?? byId("panel-title")).focus();
      }
    }
    this.showKinds();
  }

  rule(rule) {
    const label = `Remove ${rule.name}, ${extent(rule)}`;
    const remove = () => this.attempt(() => this.after(api.removeFault(rule.id)));
    return el(
      "li",
      {},
      el("span", { class: "about" }, el("code", {}, rule.name), el("span", { class: "details" }, extent(rule))),
      el("button", { type: "button", class: "icon-button", "aria-label": label, click: remove }, icon("close")),
    );
  }

  kind(name, { does, only_send: onlySend, names_recipient: namesRecipient }) {
    const ids = { "aria-labelledby": `kind-${name}`, "aria-describedby": `does-${name} not-${name}` };
    const change = () => {
      const found = this.rules.filter((rule) => rule.name === name);
      this.attempt(() => this.after(found.length ? this.remove(found) : api.addFault(this.asked(name))));
    };
    const button = el("button", {
      type: "button",
      class: "switch",
      role: "switch",
      "aria-checked": "false",
      ...ids,
      click: change,
    });
    const another = el(
      "button",
      {
        type: "button",
        class: "link",
        hidden: true,
        click: () => this.attempt(() => this.after(api.addFault(this.asked(name)))),
      },
      "Add another rule",
    );
    const not = el("span", { class: "details not", id: `not-${name}` });
    const element = el(
      "li",
      {},
      el(
        "span",
        { class: "about" },
        el("code", { id: `kind-${name}` }, name),
        el("span", { class: "does", id: `does-${name}` }, does),
        not,
        another,
      ),
      button,
    );
    return { element, button, another, not, onlySend, namesRecipient };
  }

  async remove(rules) {
    for (const rule of rules) {
      await api.removeFault(rule.id);
    }
  }

  /** Show which kinds have rules, and which do not fit the settings above them. */
  showKinds() {
    const { endpoint, to } = this.asked("");
    for (const [name, { button, another, not, onlySend, namesRecipient }] of this.kinds) {
      const on = this.rules.some((rule) => rule.name === name);
      let reason = "";
      if (onlySend && endpoint !== "send") {
        reason = "Only for “Send message”";
      } else if (to !== undefined && !namesRecipient) {
        reason = "Acts before the recipient is known";
      }
      button.setAttribute("aria-checked", String(on));
      button.disabled = !on && reason !== "";
      another.hidden = !on || reason !== "";
      not.textContent = reason;
    }
  }

  /** Return the rule that the settings describe. */
  asked(name) {
    const rule = { name, endpoint: byId("endpoint").value };
    if (byId("how-share").checked) {
      rule.share = Number(byId("share").value) / 100;
    } else {
      rule.times = Number(byId("times").value);
    }
    const to = byId("to").value.replaceAll(/[\s().-]/gu, "");
    return to ? { ...rule, to } : rule;
  }
}

/** Describe which calls a rule affects. */
function extent({ times, share, to, endpoint }) {
  const what = `${ENDPOINTS[endpoint]} call`;
  const parts = [];
  if (share === null) {
    parts.push(times === 1 ? `next ${what}` : `next ${counted(times, what)}`);
  } else {
    parts.push(`${count(share * 100)}% of ${what}s`);
    if (times !== null) {
      parts.push(`at most ${counted(times, "time")}`);
    }
  }
  return to === null ? parts.join(", ") : [...parts, `only to ${to}`].join(", ");
}
