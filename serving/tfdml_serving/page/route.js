// What the address says: the part after # names a search, so that it can be shared and gone back to.
//
//   #                            the catalogue
//   #item=ID                     more like an item
//   #photo=3                     the third photograph of this tab; it never leaves the tab's memory, so a reload forgets it
//   &k=20 &filter=… &version=2 &compare=1

export const DEFAULT_K = 10;

/** { item, photo, k, filter, version, compare } of an address' hash; null where it says nothing. */
export function readRoute(hash) {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  return {
    item: given.get("item"),
    photo: given.get("photo"),
    k: wholeNumber(given.get("k")) ?? DEFAULT_K,
    filter: (given.get("filter") ?? "").trim(),
    version: wholeNumber(given.get("version")),
    compare: wholeNumber(given.get("compare")),
  };
}

/** The hash that `readRoute` reads as `route`. */
export function writeRoute(route) {
  const words = new URLSearchParams();
  if (route.item != null) words.set("item", route.item);
  else if (route.photo != null) words.set("photo", route.photo);
  if (route.k !== DEFAULT_K) words.set("k", route.k);
  if (route.filter) words.set("filter", route.filter);
  if (route.version != null) words.set("version", route.version);
  if (route.compare != null) words.set("compare", route.compare);
  return `#${words}`;
}

export const hasQuery = (route) => route.item != null || route.photo != null;

function wholeNumber(text) {
  return text != null && /^\d{1,15}$/.test(text) ? Number(text) : null;
}
