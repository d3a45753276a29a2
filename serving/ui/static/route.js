// Addresses of the page: `#/c/ID?document=…`. Every view can be opened by its address, and the back button works.

export function routeOf(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  return { path: path.split("/").filter(Boolean).map(decoded), parameters: Object.fromEntries(new URLSearchParams(query)) };
}

export function hashOf(path, parameters = {}) {
  const given = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const query = given.length ? `?${new URLSearchParams(given)}` : "";
  return `#/${path.map(encodeURIComponent).join("/")}${query}`;
}

/** Return the address of a quote's or a hit's place, beside the view that is open now. */
export function placeHash(place) {
  const { path, parameters } = routeOf(location.hash);
  return hashOf(path, { ...parameters, source: place.document, start: place.start, end: place.end, page: place.page });
}

export function closedHash() {
  const { path, parameters } = routeOf(location.hash);
  const { source, start, end, page, ...others } = parameters;
  return hashOf(path, others);
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
