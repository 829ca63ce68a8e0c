// One item in full, over the page.

import { find, h, icon } from "./dom.js";
import { thumbnail } from "./pictures.js";
import { distanceText } from "./score.js";
import { valueText, wordsOf } from "./words.js";

/**
 * Shows `items[number]`, and its neighbours in the list by arrow keys.
 *
 * @param actions { link(item), filterBy(field, value), scale } - the scale where the items have distances
 */
export function showDetails(items, number, actions) {
  const dialog = find("#details");
  const turn = (step) => {
    number = Math.min(items.length - 1, Math.max(0, number + step));
    const focused = document.activeElement?.getAttribute("aria-label");
    fill(dialog, items, number, actions, turn);
    // What had the focus is gone; its successor gets it, if it can be used.
    const same = [...dialog.querySelectorAll("button")].find((each) => focused && each.getAttribute("aria-label") === focused && !each.disabled);
    (same ?? dialog.querySelector("a")).focus();
  };
  dialog.onkeydown = (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      turn(event.key === "ArrowRight" ? 1 : -1);
    }
  };
  // A click beside the dialog's content lands on the dialog itself.
  dialog.onclick = (event) => event.target === dialog && dialog.close();
  fill(dialog, items, number, actions, turn);
  if (!dialog.open) dialog.showModal();
}

function fill(dialog, items, number, { link, filterBy, scale }, turn) {
  const item = items[number];
  const { title } = wordsOf(item);
  const close = () => dialog.close();
  const rows = [["id", item.id], ...Object.entries(item.fields)];
  dialog.replaceChildren(
    h(
      "div",
      { class: "details-in" },
      h("button", { type: "button", class: "round details-close", "aria-label": "Close", onclick: close }, icon("close")),
      h("div", { class: "details-side" }, thumbnail(item.thumbnail, `Picture of ${title}`), items.length > 1 && turner(items, number, turn)),
      h(
        "div",
        { class: "details-words" },
        h("h2", { id: "details-title" }, title),
        scale && measured(item, scale),
        h("dl", {}, rows.flatMap(([name, value]) => field(name, value, filterBy, close))),
        h(
          "div",
          { class: "details-buttons" },
          h("a", { class: "strong", href: link(item), onclick: close, autofocus: true }, icon("like"), "More like this"),
          copyButton(link(item)),
        ),
      ),
    ),
  );
}

function measured(item, scale) {
  const exact = `distance ${distanceText(item.distance)}`;
  const text = scale.name ? `${scale.name} ${scale.text(item.distance)}${scale.of}, ${exact}` : exact;
  const verdict = item.match == null ? "" : item.match ? "a match" : "no match";
  return h(
    "p",
    { class: `measured ${item.match === false ? "beyond" : ""}` },
    text[0].toUpperCase() + text.slice(1),
    verdict && h("span", {}, verdict),
  );
}

function field(name, value, filterBy, close) {
  const shown = valueText(value);
  const apply = () => {
    close();
    filterBy(name, value);
  };
  const narrow = h("button", { type: "button", class: "narrow-by", "aria-label": `Only items with this ${name}`, title: "Only these", onclick: apply }, icon("filter"));
  return [h("dt", {}, name), h("dd", {}, h("span", {}, shown), narrow)];
}

function turner(items, number, turn) {
  const button = (step, label, sign, off) =>
    h("button", { type: "button", class: "round", "aria-label": label, disabled: off, onclick: () => turn(step) }, sign);
  return h(
    "span",
    { class: "turner" },
    button(-1, "The item before", "‹", number === 0),
    h("span", {}, `${number + 1} of ${items.length}`),
    button(1, "The next item", "›", number === items.length - 1),
  );
}

function copyButton(address) {
  // Only a secure context (https, or this machine) may write to the clipboard.
  if (!navigator.clipboard) return null;
  const button = h("button", { type: "button", class: "quiet" }, icon("link"), "Copy link");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(new URL(address, location.href).href);
      button.lastChild.data = "Copied";
    } catch {
      button.lastChild.data = "Not allowed here";
    }
  });
  return button;
}
