// The part of the sandbox's control API that the page uses.

/** Higher than any message id. */
const NEWEST = Number.MAX_SAFE_INTEGER;

/** The sandbox refused a call or could not be reached; the message says why. */
export class ApiError extends Error {}

async function call(method, path, { query = {}, body } = {}) {
  const parameters = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== undefined));
  const options = { method, headers: { Accept: "application/json" } };
  if (body !== undefined) {
    options.headers["Content-Type"] = "application/json";
    options.body = JSON.stringify(body);
  }
  let answer;
  let text;
  try {
    answer = await fetch(`/sandbox/${path}${parameters.size ? `?${parameters}` : ""}`, options);
    text = await answer.text();
  } catch {
    throw new ApiError("Cannot reach the sandbox.");
  }
  let content = null;
  try {
    content = text ? JSON.parse(text) : null;
  } catch {
    // Not JSON, so not an answer from the sandbox.
  }
  if (!answer.ok) {
    throw new ApiError(content?.message ?? `The sandbox answered with status ${answer.status}.`);
  }
  return content;
}

export const contacts = ({ before, limit }) => call("GET", "contacts", { query: { before, limit } });

export const newestMessages = (number, limit) => messagesBefore(number, NEWEST, limit);
export const messagesBefore = (number, before, limit) => call("GET", "messages", { query: { number, before, limit } });
export const messagesAfter = (number, after, limit) => call("GET", "messages", { query: { number, after, limit } });
export const deleteMessages = () => call("DELETE", "messages");

export const configure = (settings) => call("PATCH", "state", { body: settings });
export const reset = () => call("POST", "reset");
export const expireTokens = () => call("POST", "tokens/expire");
export const setDevice = (instanceId, verb) => call("POST", `devices/${encodeURIComponent(instanceId)}/${verb}`);

export const faults = () => call("GET", "faults");
export const addFault = (rule) => call("POST", "faults", { body: rule });
export const removeFault = (id) => call("DELETE", `faults/${id}`);
export const clearFaults = () => call("DELETE", "faults");
