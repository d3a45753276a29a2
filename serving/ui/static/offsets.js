// Beleg counts Unicode code points, JavaScript counts UTF-16 units: an emoji is one of the former and two of the latter.

/** Return the UTF-16 index of the code point `offset` in a text; at most the text's length. */
export function toUnits(text, offset) {
  let units = 0;
  for (let points = 0; points < offset && units < text.length; points++) {
    units += text.codePointAt(units) > 0xffff ? 2 : 1;
  }
  return units;
}

/** Return how many code points a text has. */
export function countPoints(text) {
  let points = 0;
  for (let units = 0; units < text.length; points++) units += text.codePointAt(units) > 0xffff ? 2 : 1;
  return points;
}

/** Cut a text at code points, which stand in ascending order; what lies outside of the text gives empty pieces. */
export function cutAt(text, points) {
  const pieces = [];
  let units = 0;
  let before = 0;
  for (const point of points) {
    const next = units + toUnits(text.slice(units), Math.max(0, point - before));
    pieces.push(text.slice(units, next));
    units = next;
    before = Math.max(before, point);
  }
  pieces.push(text.slice(units));
  return pieces;
}
