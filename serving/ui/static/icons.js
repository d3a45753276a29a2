// Small drawings on a 24 by 24 grid, stroked in the colour of the text around them.

const PATHS = {
  ask: "M12 19V5M6 11l6-6 6 6",
  back: "M15 5l-7 7 7 7",
  check: "M5 12.5l4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6L6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  down: "M7 4v10M7 14H4V4h3m0 10 4 7c1.5 0 2.5-1 2.5-2.5V14H19c1 0 2-1 1.7-2.2l-1.5-6C19 4.7 18.2 4 17 4H7",
  file: "M6 3h8l5 5v13H6zM14 3v5h5",
  folder: "M3 6h6l2 2h10v11H3z",
  forward: "M9 5l7 7-7 7",
  history: "M12 7v5l3.5 2M4 12a8 8 0 1 0 2.5-5.8M4 4v4h4",
  minus: "M6 12h12",
  plus: "M12 6v12M6 12h12",
  search: "M11 4a7 7 0 1 0 0 14a7 7 0 0 0 0-14M16 16l5 5",
  stop: "M6.5 6.5h11v11h-11z",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  up: "M7 20V10M7 10H4v10h3m0-10 4-7c1.5 0 2.5 1 2.5 2.5V10H19c1 0 2 1 1.7 2.2l-1.5 6C19 19.3 18.2 20 17 20H7",
  upload: "M12 16V5M7 10l5-5 5 5M5 19h14",
  warning: "M12 4l9 16H3zM12 10v4M12 17v.5",
};

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", "0 0 24 24");
  drawing.setAttribute("class", "icon");
  drawing.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  drawing.append(path);
  return drawing;
}
