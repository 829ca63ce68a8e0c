// What was asked: the photo or the item, beside its neighbours.

import { find, h, icon } from "./dom.js";
import { pickers } from "./pickers.js";
import { thumbnail } from "./pictures.js";
import { wordsOf } from "./words.js";

/** Shows the query: a photo, or else an item (whose fields may not be known yet). */
export function showAsked({ photo, item }, actions) {
  const picture = photo ? preview(photo) : thumbnail(item.thumbnail, `Picture of ${wordsOf(item).title}`);
  find("#asked").replaceChildren(
    picture,
    h("div", { class: "asked-words" }, ...(photo ? photoWords(photo) : itemWords(item, actions))),
    h("div", { class: "asked-buttons" }, ...pickers("New photo"), h("a", { class: "quiet", href: "#" }, icon("back"), h("span", { class: "label" }, "Catalogue"))),
  );
}

function preview(photo) {
  const image = h("img", { src: photo.url, alt: "The photo that was searched with" });
  image.addEventListener("error", () => image.replaceWith(icon("picture")));
  return h("span", { class: "picture whole there" }, image);
}

function photoWords({ name, width, height, note }) {
  const facts = [width && `${width} × ${height}`, note].filter(Boolean).join(", ");
  return [h("h1", {}, "Your photo"), name && name !== "image.png" && h("p", { class: "asked-name" }, name), facts && h("p", {}, facts)].filter(Boolean);
}

function itemWords(item, actions) {
  const { title, more } = wordsOf(item);
  const details = actions && h("button", { type: "button", class: "plain", onclick: () => actions.details([item], 0, null) }, "Details");
  return [h("p", { class: "asked-kind" }, "More like"), h("h1", {}, title), more && h("p", {}, more), details && h("p", {}, details)].filter(Boolean);
}
