// The catalogue, page by page, when nothing is searched for.

import * as api from "./api.js";
import { card } from "./cards.js";
import { h } from "./dom.js";
import { whole } from "./words.js";

const PAGE = 48;

/** Items in an order that shows a bit of everything on each page: the first ones, or those behind a place. */
export const itemsPage = (words, after, signal) => api.items({ ...words, limit: PAGE, order: "spread", after }, signal);

/** The first page of items and a button for the next ones. */
export function browse(first, words, { service, actions, learn, failed }) {
  const items = [];
  const list = h("ul", { class: "grid", "aria-label": "Items" });
  const count = h("span", { class: "count" });
  const more = h("button", { type: "button", class: "quiet", onclick: showMore }, "Show more");
  const foot = h("p", { class: "more" }, more);
  let next = first.next;

  function add(page) {
    const start = items.length;
    items.push(...page.items);
    list.append(
      ...page.items.map((item, i) => card(item, { href: actions.link(item), onDetails: () => actions.details(items, start + i, null) })),
    );
    next = page.next;
    foot.hidden = next == null;
    const all = next == null ? `${whole(items.length)}` : words.filter ? `the first ${whole(items.length)}` : `${whole(items.length)} of ${whole(service.items)}`;
    count.textContent = items.length ? all : "";
  }

  async function showMore() {
    more.disabled = true;
    try {
      const page = await itemsPage(words, next);
      const place = items.length;
      learn(page.items);
      add(page);
      // The button may be gone; whoever came by keyboard goes on with the first new item.
      list.children[place]?.querySelector(".card-link").focus({ preventScroll: true });
    } catch (problem) {
      failed(problem);
    }
    more.disabled = false;
  }

  add(first);
  const heading = h("h2", { class: "catalogue-title", tabindex: "-1" }, words.filter ? "Items that pass the filter" : "Or start from an item", count);
  const empty = h("p", { class: "empty" }, words.filter ? "No item of the catalogue passes the filter." : "The catalogue is empty.");
  return h("div", {}, heading, items.length ? list : empty, foot);
}
