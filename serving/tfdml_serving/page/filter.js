// The filter box: suggests the bundle's fields, what can be asked of them and values seen so far; marks where an error is.

import { h, icon } from "./dom.js";

const COMPARISONS = [
  ["=", "is"],
  ["!=", "is not"],
  ["<", "less than"],
  ["<=", "at most"],
  [">", "more than"],
  [">=", "at least"],
  ["in (", "is one of"],
  ["is null", "has no value"],
  ["is not null", "has a value"],
];
const LIKE = ["like '", "begins or ends with: 'milk%'"];
const JOINS = [
  ["and", "both"],
  ["or", "either"],
];
const TOKEN = /'(?:[^']|'')*'?|"(?:[^"]|"")*"?|<=|>=|!=|[=<>(),]|[^\s'"=<>!(),]+/g;
const MOST = 9;

/** A value as the filter's language writes it. */
export function literal(value) {
  if (typeof value === "number" || typeof value === "bigint") return String(value);
  return `'${String(value).replaceAll("'", "''")}'`;
}

const KEYWORDS = ["and", "or", "not", "in", "is", "null", "like"];

/** A field's name as the filter's language writes it. */
export function fieldName(name) {
  const bare = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !KEYWORDS.includes(name.toLowerCase());
  return bare ? name : `"${name.replaceAll('"', '""')}"`;
}

/** `field = value`, also for what has no value. */
export const condition = (name, value) => (value == null ? `${fieldName(name)} is null` : `${fieldName(name)} = ${literal(value)}`);

/**
 * What may come next after `text`: { expect, field, prefix, start }.
 *
 * `expect` is field, comparison, value, list or join; `prefix` is the unfinished word at the end, which begins at `start`.
 */
export function expected(text) {
  const tokens = [...text.matchAll(TOKEN)].map((match) => ({ text: match[0], start: match.index }));
  const last = tokens.at(-1);
  // A word that touches the end may still be going on.
  const open = last && last.start + last.text.length === text.length && !/^(<=|>=|!=|[=<>(),])$/.test(last.text) ? tokens.pop() : null;
  let expect = "field";
  let field = null;
  for (const { text: token } of tokens) {
    const word = token.toLowerCase();
    if (expect === "field") {
      if (word === "not" || token === "(") continue;
      field = token.startsWith('"') ? token.slice(1, -1).replaceAll('""', '"') : token;
      expect = "comparison";
    } else if (expect === "comparison") {
      if (word === "not") continue;
      expect = word === "in" ? "list" : word === "is" ? "null" : "value";
    } else if (expect === "list") {
      if (token === ")") expect = "join";
    } else if (expect === "null") {
      if (word === "null") expect = "join";
    } else if (expect === "value") expect = "join";
    else if (word === "and" || word === "or") expect = "field";
  }
  return { expect, field, prefix: open?.text ?? "", start: open?.start ?? text.length };
}

/** The combobox around an input: `apply(text)` is called when a person has finished a filter. */
export class FilterBox {
  constructor({ input, options, error, clear, apply }) {
    Object.assign(this, { input, options, error, clear, apply });
    this.fields = {};
    this.values = new Map();
    this.active = -1;
    input.addEventListener("input", () => this.suggest());
    input.addEventListener("focus", () => this.suggest());
    input.addEventListener("click", () => this.suggest());
    input.addEventListener("blur", () => this.close());
    input.addEventListener("keydown", (event) => this.onKey(event));
    // A press on a suggestion must not take the focus from the input.
    options.addEventListener("pointerdown", (event) => event.preventDefault());
    clear.addEventListener("click", () => {
      this.show("");
      this.input.focus();
      this.close();
      this.apply("");
    });
  }

  /** The fields by name and type, and a hint made of them. */
  setFields(fields) {
    this.fields = fields;
    const texts = Object.keys(fields).filter((field) => fields[field] === "text");
    const name = texts.find((field) => /^(category|brand|type|class)$/i.test(field)) ?? texts[0] ?? "id";
    this.input.placeholder = `Filter: ${fieldName(name)} = …`;
  }

  /** Remembers the values of items that were shown, to suggest them. */
  learn(items) {
    for (const item of items) {
      for (const [name, value] of Object.entries({ id: item.id, ...item.fields })) {
        if (value == null) continue;
        if (!this.values.has(name)) this.values.set(name, new Map());
        const known = this.values.get(name);
        if (known.size < 500) known.set(value, (known.get(value) ?? 0) + 1);
      }
    }
  }

  show(text) {
    if (this.input.value !== text) this.input.value = text;
    this.clear.hidden = !this.input.value;
  }

  /** Says what is wrong with the filter, and where; null takes it back. */
  complain(problem) {
    this.input.setAttribute("aria-invalid", problem ? "true" : "false");
    this.error.hidden = !problem;
    if (!problem) return;
    const parts = [h("span", {}, problem.detail || problem.title)];
    const text = this.input.value;
    const at = problem.position;
    if (at != null && at <= text.length) {
      const end = at + (text.slice(at).match(TOKEN)?.[0].length ?? 0);
      const marked = h("mark", {}, text.slice(at, end) || "\u00a0");
      parts.unshift(h("code", { "aria-hidden": "true" }, text.slice(0, at), marked, text.slice(end)));
      if (document.activeElement === this.input) this.input.setSelectionRange(at, end);
    }
    this.error.replaceChildren(icon("warning"), h("span", { class: "filter-said" }, parts));
  }

  suggest() {
    this.clear.hidden = !this.input.value;
    const caret = this.input.selectionEnd ?? this.input.value.length;
    const next = expected(this.input.value.slice(0, caret));
    const found = this.candidates(next).filter(({ insert }) => insert.trim().toLowerCase() !== next.prefix.toLowerCase());
    this.active = -1;
    this.options.replaceChildren(
      ...found.slice(0, MOST).map((option, i) =>
        h(
          "li",
          { role: "option", id: `filter-option-${i}`, "aria-selected": "false", onclick: () => this.accept(option, next, caret) },
          h("span", {}, option.insert.trim()),
          option.hint && h("small", {}, option.hint),
        ),
      ),
    );
    this.choose = (i) => this.accept(found[i], next, caret);
    this.toggle(found.length > 0);
  }

  candidates({ expect, field, prefix }) {
    const begins = prefix.toLowerCase();
    const fits = (text) => text.toLowerCase().startsWith(begins.replace(/^"/, ""));
    const pairs = (list) => list.filter(([text]) => fits(text)).map(([text, hint]) => ({ insert: /['(]$/.test(text) ? text : `${text} `, hint }));
    const types = { id: "text", ...this.fields };
    if (expect === "field") {
      const names = [...Object.keys(this.fields), "id"];
      const found = names.filter(fits).concat(begins ? names.filter((name) => !fits(name) && name.toLowerCase().includes(begins)) : []);
      return [...new Set(found)].map((name) => ({ insert: `${fieldName(name)} `, hint: types[name] }));
    }
    if (expect === "comparison") return pairs(types[field] === "text" ? [COMPARISONS[0], COMPARISONS[1], LIKE, ...COMPARISONS.slice(6)] : COMPARISONS);
    if (expect === "join") return pairs(JOINS);
    if (expect !== "value" && expect !== "list") return [];
    const bare = begins.replace(/^['"]/, "");
    const known = [...(this.values.get(field) ?? [])].sort((a, b) => b[1] - a[1]).map(([value]) => value);
    return known
      .filter((value) => String(value).toLowerCase().includes(bare))
      .sort((a, b) => Number(String(b).toLowerCase().startsWith(bare)) - Number(String(a).toLowerCase().startsWith(bare)))
      .map((value) => ({ insert: `${literal(value)}${expect === "list" ? "" : " "}`, hint: "" }));
  }

  accept(option, next, caret) {
    const before = this.input.value.slice(0, next.start);
    const gap = before && !/[\s(]$/.test(before) ? " " : "";
    const text = before + gap + option.insert;
    this.input.value = text + this.input.value.slice(caret).trimStart();
    this.input.setSelectionRange(text.length, text.length);
    this.input.focus();
    this.suggest();
  }

  onKey(event) {
    const count = this.options.children.length;
    const opened = !this.options.hidden;
    if ((event.key === "ArrowDown" || event.key === "ArrowUp") && count) {
      event.preventDefault();
      if (!opened) this.toggle(true);
      const step = event.key === "ArrowDown" ? 1 : -1;
      this.mark(this.active < 0 && step < 0 ? count - 1 : (this.active + step + count) % count);
    } else if (event.key === "Escape") {
      if (opened) event.preventDefault();
      this.close();
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (opened && this.active >= 0) this.choose(this.active);
      else {
        this.close();
        this.apply(this.input.value.trim());
      }
    }
  }

  mark(number) {
    this.active = number;
    [...this.options.children].forEach((option, i) => option.setAttribute("aria-selected", String(i === number)));
    this.input.setAttribute("aria-activedescendant", `filter-option-${number}`);
    this.options.children[number].scrollIntoView({ block: "nearest" });
  }

  toggle(open) {
    this.options.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
    if (!open || this.active < 0) this.input.removeAttribute("aria-activedescendant");
  }

  close() {
    this.active = -1;
    this.toggle(false);
  }
}
