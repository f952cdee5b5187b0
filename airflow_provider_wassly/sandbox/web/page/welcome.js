// Instructions to show while there are no messages.

import { byId } from "./dom.js";

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/u;
const QUOTE = /'/gu;

export function fillWelcome(state) {
  const instance = state.devices[0]?.instance_id ?? "sandbox-instance";
  const extra = { apikey: "sandbox-apikey", instance_id: instance };
  if (!LOOPBACK.test(location.hostname) && location.protocol === "http:") {
    extra.allow_http = true;
  }
  const connection = {
    conn_type: "wassly",
    host: location.origin,
    login: "sandbox@example.com",
    password: "sandbox-password",
    extra,
  };
  byId("connection").textContent = `export AIRFLOW_CONN_WASSLY_DEFAULT=${quoted(JSON.stringify(connection, null, 1))}`;
  byId("curl").textContent = [
    `curl ${location.origin}/api/whatsapp-web-send-message`,
    '-H "apikey: sandbox-apikey" -H "Authorization: Bearer sandbox-token"',
    `-F contact_mobile_number=+15550100 -F ${quoted(`instance_id=${instance}`)}`,
    "-F 'message=It *works*'",
  ].join(" \\\n  ");
}

/** Quote a text for a shell. */
function quoted(text) {
  return `'${text.replace(QUOTE, `'\\''`)}'`;
}
