// A message's files: shown if the browser can, otherwise as a card. All of them can be downloaded.

import { byId, el, icon } from "./dom.js";
import { size } from "./words.js";

const IMAGES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp", "image/svg+xml", "image/avif"]);
/** Players preload files up to this many bytes; larger ones would keep connections busy. */
const EAGER = 2_000_000;

/** The icon and the label of a message's attachment in the contact list. */
export function kindOf(message) {
  if (message.media) {
    const kind = playerOf(message.media);
    return (
      { image: ["image", "Photo"], video: ["video", "Video"], audio: ["audio", "Audio"] }[kind] ?? [
        "document",
        message.media.name,
      ]
    );
  }
  return message.document ? ["document", message.document.name] : null;
}

/** Return the elements for a message's files, in display order. */
export function attachments(message) {
  const shown = [];
  if (message.media) {
    shown.push(media(message.media));
  }
  if (message.document) {
    shown.push(card(message.document)); // whatever its type, as messengers do
  }
  return shown;
}

function mime(file) {
  return file.content_type.split(";")[0].trim().toLowerCase();
}

function playerOf(file) {
  const type = mime(file);
  if (IMAGES.has(type)) {
    return "image";
  }
  return ["video", "audio"].find((kind) => type.startsWith(`${kind}/`)) ?? null;
}

function media(file) {
  const kind = playerOf(file);
  if (!kind) {
    return card(file);
  }
  const box = el("figure", { class: `media ${kind}` });
  const fallBack = () => box.replaceWith(card(file));
  if (kind === "image") {
    const picture = el("img", { src: file.url, alt: file.name, loading: "lazy", error: fallBack });
    const open = el(
      "button",
      { type: "button", class: "enlarge", "aria-label": `Enlarge ${file.name}`, click: () => enlarge(file) },
      picture,
    );
    box.append(open);
  } else {
    const preload = file.size <= EAGER ? "metadata" : "none";
    box.append(el(kind, { src: file.url, controls: true, preload, "aria-label": file.name, error: fallBack }));
  }
  box.append(el("figcaption", {}, name(file), el("span", { class: "details" }, size(file.size)), download(file)));
  return box;
}

function card(file) {
  const type = mime(file);
  const facts = [type, size(file.size)].filter(Boolean).join(" · ");
  return el(
    "a",
    {
      class: "card",
      href: file.url,
      download: file.name,
      "aria-label": `Download ${file.name}`,
      title: `SHA-256 ${file.sha256}`,
    },
    el("span", { class: "sheet", "data-family": family(type) }, icon("document"), el("span", {}, extension(file))),
    el("span", { class: "about" }, name(file), el("span", { class: "details" }, facts)),
    icon("download"),
  );
}

function name(file) {
  return el("span", { class: "file-name", dir: "auto", title: file.name }, file.name);
}

function download(file) {
  const label = `Download ${file.name}`;
  return el(
    "a",
    { class: "icon-button", href: file.url, download: file.name, "aria-label": label, title: `SHA-256 ${file.sha256}` },
    icon("download"),
  );
}

function extension(file) {
  return file.name.match(/\.([A-Za-z0-9]{1,4})$/u)?.[1].toUpperCase() ?? "";
}

function family(type) {
  if (type === "application/pdf") {
    return "pdf";
  }
  return /csv|excel|spreadsheet|parquet/u.test(type) ? "table" : "other";
}

function enlarge(file) {
  const viewer = byId("viewer");
  const close = el(
    "button",
    { type: "button", class: "icon-button", "aria-label": "Close", click: () => viewer.close() },
    icon("close"),
  );
  viewer.replaceChildren(
    el("div", { class: "viewer-head" }, name(file), download(file), close),
    el("img", { src: file.url, alt: file.name, click: () => viewer.close() }),
  );
  viewer.showModal();
}
