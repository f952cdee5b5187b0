// Renders WhatsApp's formatting as DOM nodes.

import { el } from "./dom.js";

const TAGS = { "*": "strong", _: "em", "~": "s" };

const CODE_BLOCK = /(```[\s\S]+?```)/u;
// Shown as is, without formatting inside: a code block, inline code, a URL.
const ATOM = /```[\s\S]+?```|`[^`\n]+`|(?<![\p{L}\p{N}_])https?:\/\/[^\s<>"`]+/giu;
const AFTER_ADDRESS = /[.,;:!?'*_~\])}>…]+$/u;

const WORD = /[\p{L}\p{N}]/u;
const SPACE = /\s/u;

const BLOCKS = [
  [/^> ?(?<text>[\s\S]*)$/u, "blockquote"],
  [/^[-*] +(?<text>\S[\s\S]*)$/u, "ul"],
  [/^(?<number>\d{1,9})\. +(?<text>\S[\s\S]*)$/u, "ol"],
];

/** Render the whole text of a message. */
export function formatted(text) {
  const fragment = document.createDocumentFragment();
  let block = null;
  for (const line of lines(text.replaceAll(/\r\n?/gu, "\n"))) {
    const [found, tag] = BLOCKS.map(([pattern, tag]) => [line.match(pattern), tag]).find(([match]) => match) ?? [];
    if (!found) {
      block = null;
      fragment.append(inLine("p", line));
      continue;
    }
    if (block?.localName !== tag) {
      block = el(tag, { dir: tag !== "blockquote" && "auto" });
      fragment.append(block);
    }
    const item = inLine(tag === "blockquote" ? "p" : "li", found.groups.text);
    if (tag === "ol") {
      item.setAttribute("value", found.groups.number); // show the numbers that were sent
    }
    if (tag !== "blockquote") {
      item.removeAttribute("dir"); // all markers of a list go on the same side
    }
    block.append(item);
  }
  return fragment;
}

/** Render the first non-blank line of a text, without links, cut to what fits. */
export function preview(text) {
  const line = text.match(/\S[^\n]*/u)?.[0] ?? "";
  const fragment = document.createDocumentFragment();
  append(fragment, items(Array.from(line.slice(0, 400)).slice(0, 160).join(""), false));
  return fragment;
}

/** Split a text into lines, except inside code blocks. */
function lines(text) {
  const found = [""];
  text.split(CODE_BLOCK).forEach((part, index) => {
    const [first, ...others] = index % 2 ? [part] : part.split("\n");
    found[found.length - 1] += first;
    for (const other of others) {
      found.push(other);
    }
  });
  return found;
}

function inLine(tag, line) {
  const made = el(tag, { dir: "auto" });
  append(made, items(line, true));
  if (!line) {
    made.append(el("br"));
  }
  return made;
}

/** Split a line into characters, and nodes for the parts that are shown as is. */
function items(line, links) {
  const found = [];
  const addText = (text) => {
    for (const character of text) {
      found.push(character);
    }
  };
  let end = 0;
  for (const { 0: match, index } of line.matchAll(ATOM)) {
    addText(line.slice(end, index));
    end = index + match.length;
    if (match.startsWith("```")) {
      found.push(el("code", { class: "block", dir: "auto" }, match.slice(3, -3).replace(/^\n/u, "")));
    } else if (match.startsWith("`")) {
      found.push(el("code", { dir: "auto" }, match.slice(1, -1)));
    } else {
      const address = trimmed(match);
      end = index + address.length;
      found.push(links && isAddress(address) ? link(address) : document.createTextNode(address));
    }
  }
  addText(line.slice(end));
  return found;
}

/** Remove the punctuation of the surrounding sentence from the end of a URL. */
function trimmed(address) {
  let text = address.replace(AFTER_ADDRESS, "");
  // A closing bracket belongs to the URL if it was opened there.
  while (address[text.length] === ")" && text.split("(").length > text.split(")").length) {
    text += ")";
  }
  return text;
}

function isAddress(text) {
  return URL.canParse(text) && ["http:", "https:"].includes(new URL(text).protocol);
}

function link(address) {
  return el("a", { href: address, target: "_blank", rel: "noopener noreferrer", dir: "ltr" }, address);
}

/** Append the items between two indexes, wrapping the text between two formatting marks in an element. */
function append(parent, all, from = 0, to = all.length) {
  // A mark without a closing one here has none further on either; remembering that keeps long texts fast.
  const unclosed = new Set();
  let text = "";
  for (let at = from; at < to; at++) {
    const item = all[at];
    if (typeof item !== "string") {
      parent.append(text, item);
      text = "";
      continue;
    }
    if (Object.hasOwn(TAGS, item) && !unclosed.has(item) && opens(all, at, to)) {
      const end = closing(all, at, to);
      if (end) {
        const child = el(TAGS[item]);
        append(child, all, at + 1, end);
        parent.append(text, child);
        text = "";
        at = end;
        continue;
      }
      unclosed.add(item);
    }
    text += item;
  }
  parent.append(text);
}

function opens(all, at, to) {
  const [before, mark, after] = [all[at - 1], all[at], all[at + 1]];
  return at + 1 < to && !isWord(before) && before !== mark && !isSpace(after) && after !== mark;
}

function closing(all, start, to) {
  const mark = all[start];
  for (let at = start + 2; at < to; at++) {
    const [before, after] = [all[at - 1], all[at + 1]];
    if (all[at] === mark && !isSpace(before) && before !== mark && !isWord(after) && after !== mark) {
      return at;
    }
  }
  return 0;
}

const isWord = (item) => typeof item === "string" && WORD.test(item);
const isSpace = (item) => typeof item === "string" && SPACE.test(item);
