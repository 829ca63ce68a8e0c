// Elements from tag, attributes and children; no markup is ever made from text.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are false or null are left out; `on…` are listeners. */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value == null) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

export const find = (selector) => document.querySelector(selector);

// Drawn on a 24 x 24 grid, as strokes.
const ICONS = {
  picture: "M4 5h16v14H4z M4 16l5-5 4 4 3-3 4 4 M15.5 9.5h.01",
  camera: "M4 8h3l2-3h6l2 3h3v11H4z M12 10a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7",
  filter: "M4 6h16 M7 12h10 M10 18h4",
  close: "M6 6l12 12 M18 6L6 18",
  info: "M12 3.5a8.5 8.5 0 1 0 0 17a8.5 8.5 0 1 0 0-17 M12 11v5 M12 7.8h.01",
  key: "M8 11.5a3.5 3.5 0 1 0 0 7a3.5 3.5 0 1 0 0-7 M10.5 12.5L19 4 M16 7l3 3",
  check: "M5 12.5l4.5 4.5L19 7.5",
  none: "M10.5 4.5a6 6 0 1 0 0 12a6 6 0 1 0 0-12 M15 15l5 5 M8.5 8.5l4 4 M12.5 8.5l-4 4",
  warning: "M12 4L2.8 19.5h18.4z M12 10v4.5 M12 17h.01",
  offline: "M3 3l18 18 M5 12.5a10 10 0 0 1 4.5-2.6 M14.5 10a10 10 0 0 1 4.5 2.5 M8.5 16a5 5 0 0 1 7 0 M12 19.5h.01",
  link: "M10 14a4 4 0 0 0 5.7 0l3-3a4 4 0 0 0-5.7-5.7L12 6.3 M14 10a4 4 0 0 0-5.7 0l-3 3A4 4 0 0 0 11 18.7l1-1",
  back: "M10 6l-6 6 6 6 M4 12h16",
  like: "M9 5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11 M15 8a5.5 5.5 0 1 1-3 10.1",
};

/** One of the page's own pictograms; decoration, hidden from screen readers. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", class: "icon", "aria-hidden": "true", focusable: "false" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

/** Puts icons where the page's markup asks for them. */
export function fillIcons(root = document) {
  for (const place of root.querySelectorAll("[data-icon]")) place.replaceChildren(icon(place.dataset.icon));
}
