// The page header: quota, devices, the number of active rules.

import { byId, el } from "./dom.js";
import { count, counted } from "./words.js";

/** If there are more devices than this, show only how many. */
const MAX_DEVICES = 2;

export function showState(state) {
  const gauge = byId("gauge");
  const full = Math.max(state.first_conversations, state.conversations, 1);
  gauge.max = full;
  gauge.low = full / 10;
  gauge.high = full / 10;
  gauge.optimum = full;
  gauge.value = state.conversations;
  gauge.title = `${count(state.conversations)} of ${count(full)} conversations left`;
  byId("gauge-text").textContent = count(state.conversations);

  byId("devices").replaceChildren(...devices(state.devices));

  byId("latency-fact").hidden = !state.latency;
  byId("latency-fact").textContent = `Latency ${state.latency} s`;

  const badge = byId("chaos-count");
  badge.hidden = !state.faults;
  badge.textContent = count(state.faults);
  byId("chaos-button").setAttribute(
    "aria-label",
    state.faults ? `Chaos, ${counted(state.faults, "active rule")}` : "Chaos",
  );
}

function devices(all) {
  const connected = all.filter(({ status }) => status === "connected").length;
  if (!all.length) {
    return [device("disconnected", "No device", "connected")];
  }
  if (all.length > MAX_DEVICES) {
    const status = connected === all.length ? "connected" : "disconnected";
    return [device(status, `${count(connected)} of ${count(all.length)} devices`, "connected")];
  }
  return all.map(({ name, status, instance_id }) => device(status, name || instance_id, status, instance_id));
}

function device(status, name, text, title) {
  return el(
    "li",
    { title },
    el("span", { class: "dot", "data-status": status }),
    el("span", { class: "name", dir: "auto" }, name),
    ` ${text}`,
  );
}
