// Which of an item's fields is its name, and which says more about it.

const NAMES = ["title", "name", "product", "label"];
const MORE = ["category", "brand", "label", "class", "type", "kind", "colour", "color"];
const PRICES = ["price"];

const count = new Intl.NumberFormat("en");
const decimal = new Intl.NumberFormat("en", { maximumSignificantDigits: 6, useGrouping: false });

export const plural = (number, one, many = `${one}s`) => `${count.format(number)} ${number === 1 ? one : many}`;
export const whole = (number) => count.format(number);

/** { title, more, price } of an item. */
export function wordsOf(item) {
  const byName = new Map(Object.entries(item.fields).map(([name, value]) => [name.toLowerCase(), value]));
  const first = (names, fits) => names.map((name) => byName.get(name)).find((value) => value != null && value !== "" && fits(value));
  const title = String(first(NAMES, () => true) ?? item.id);
  const more = first(MORE, (value) => plain(value) !== plain(title));
  const price = first(PRICES, (value) => typeof value === "number");
  // Where nothing else tells two items apart their ids do; of a path the end says most.
  const apart = title === item.id ? "" : item.id.split("/").pop();
  return { title, more: more == null ? apart : String(more), price: price == null ? "" : price.toFixed(2) };
}

/** A field's value for people. */
export function valueText(value) {
  if (value == null) return "–";
  return typeof value === "number" && !Number.isInteger(value) ? decimal.format(value) : String(value);
}

const plain = (value) => String(value).toLowerCase().replace(/[\s_-]+/g, " ");
