// One item: in the grid of an answer or of the catalogue, and as a row of a comparison.

import { h, icon } from "./dom.js";
import { thumbnail } from "./pictures.js";
import { scoreBar } from "./score.js";
import { wordsOf } from "./words.js";

/**
 * A card whose link searches for more like it.
 *
 * @param item   { id, fields, thumbnail } and, in an answer, { distance, match }
 * @param shown  { href, scale, badge, onDetails }
 */
export function card(item, shown) {
  const { title, more, price } = wordsOf(item);
  const beyond = item.match === false;
  return h(
    "li",
    { class: beyond ? "card beyond" : "card", "data-id": item.id },
    h(
      "a",
      { class: "card-link", href: shown.href, draggable: "false" },
      thumbnail(item.thumbnail),
      h(
        "span",
        { class: "card-words" },
        h("span", { class: "sr" }, "More like "),
        h("span", { class: "card-title" }, title),
        (more || price) && h("span", { class: "card-more" }, h("span", {}, more), price && h("span", { class: "card-price" }, price)),
        shown.scale && scoreBar(shown.scale, item.distance),
        beyond && h("span", { class: "sr" }, ", beyond the threshold"),
      ),
      shown.badge,
    ),
    h(
      "button",
      { type: "button", class: "card-info", "aria-label": `Details of ${title}`, title: "Details (i)", onclick: shown.onDetails },
      icon("info"),
    ),
  );
}

/** Grey cards in the place of those to come. */
export function skeleton(count) {
  const blank = () => h("li", { class: "card blank" }, h("span", { class: "picture" }), h("span", { class: "line" }), h("span", { class: "line short" }));
  return h("ul", { class: "grid", "aria-hidden": "true" }, Array.from({ length: count }, blank));
}

/** Arrow keys, Home and End between the cards of all grids below `root`; i opens the details of the one in focus. */
export function moveWithArrows(root) {
  root.addEventListener("keydown", (event) => {
    const at = event.target.closest?.(".card");
    if (!at || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    if (event.key === "i") {
      event.preventDefault();
      at.querySelector(".card-info").click();
      return;
    }
    const cards = [...root.querySelectorAll(".card:not(.blank)")];
    const next = neighbour(cards, at, event.key);
    if (!next) return;
    event.preventDefault();
    const link = next.querySelector(".card-link");
    link.focus({ preventScroll: true });
    link.scrollIntoView({ block: "nearest" });
  });
}

function neighbour(cards, at, key) {
  const here = cards.indexOf(at);
  if (key === "Home") return cards[0];
  if (key === "End") return cards.at(-1);
  if (key === "ArrowLeft") return cards[here - 1];
  if (key === "ArrowRight") return cards[here + 1];
  if (key !== "ArrowUp" && key !== "ArrowDown") return null;
  // The nearest row above or below, and in it the card that is most nearly in line.
  const { left, top } = at.getBoundingClientRect();
  const down = key === "ArrowDown";
  const places = cards.map((card) => ({ card, box: card.getBoundingClientRect() }));
  const rows = places.filter(({ box }) => (down ? box.top > top + 4 : box.top < top - 4));
  if (!rows.length) return null;
  const row = rows.reduce((best, { box }) => (down ? Math.min(best, box.top) : Math.max(best, box.top)), down ? Infinity : -Infinity);
  return rows
    .filter(({ box }) => Math.abs(box.top - row) <= 4)
    .reduce((best, next) => (Math.abs(next.box.left - left) < Math.abs(best.box.left - left) ? next : best)).card;
}
