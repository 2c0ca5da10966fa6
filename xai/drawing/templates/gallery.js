"use strict";
// The data: images, rows (one a map, in the order of data.columns), names that rows point at, scales, colour tables.
// Text from the data reaches the page through textContent and attributes only, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const RESOLUTION = 256; // longest edge of a drawn map, in canvas pixels

// --- data ------------------------------------------------------------------------------------------------------------

const rows = data.rows.map((values) => Object.fromEntries(data.columns.map((column, at) => [column, values[at]])));
const images = data.images.map((image) => ({ ...image, rows: [] }));
for (const row of rows) images[row.image].rows.push(row);
const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
const tables = Object.fromEntries(Object.entries(data.colours).map(([name, text]) => [name, bytes(text)]));
const numbers = ["probability", ...data.scores];
const titled = (name) => {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
};
const shown = (value) => (value === null || value === undefined ? "–" : Math.abs(value) >= 0.001 || value === 0 ? value.toFixed(3) : value.toExponential(1));
const named = (list, index) => (index === null || index === undefined ? "unknown" : list[index]);

/** The row of an image that the controls choose, of several folds the first, else one with an error, else null. */
function chosen(image) {
  const set = Number($("method").value), which = $("class").value, fold = $("fold").value;
  const of = (row) => which === "predicted" ? row.prediction : which === "true" ? image.label : Number(which);
  const mine = image.rows.filter((row) => (row.set === set || row.set === null) && (fold === "" || row.fold === fold));
  return mine.find((row) => row.class !== null && row.class === of(row)) ?? mine.find((row) => row.error !== null) ?? null;
}

/** What is known of an image under the chosen candidate, even where the map of the chosen class is missing. */
function known(card) {
  const set = Number($("method").value);
  const row = card.row ?? card.image.rows.find((other) => other.set === set) ?? null;
  const prediction = row?.prediction ?? null;
  const label = card.image.label;
  const result = prediction === null || label === null ? "unknown" : prediction === label ? "correct" : "wrong";
  return { prediction, result };
}

// --- drawing ---------------------------------------------------------------------------------------------------------

/** Where each pixel along an edge falls between two cells, the first at `start`, `step` apart, in edges; ends repeated. */
function places(pixels, source, start, step) {
  return Array.from({ length: pixels }, (_, at) => {
    const place = Math.min(Math.max(((at + 0.5) / pixels - start) / step, 0), source - 1);
    const low = Math.floor(place);
    return [low, Math.min(low + 1, source - 1), place - low];
  });
}

function scaleOf(row) {
  return $("scale").value === "shared" ? data.sets[row.set].scale : row.peak;
}

/** Draw a row's evidence into a canvas: colour by level, alpha in proportion; the opacity is left to the style. */
function draw(canvas, row, image) {
  const factor = RESOLUTION / Math.max(image.width, image.height);
  const width = Math.max(1, Math.round(image.width * factor)), height = Math.max(1, Math.round(image.height * factor));
  canvas.width = width; // clears it
  canvas.height = height;
  const scale = row && row.map !== null ? scaleOf(row) : 0;
  if (!(scale > 0)) return;
  const map = bytes(row.map), table = tables[$("colours").value];
  const [startY, startX, stepY, stepX] = data.placements[row.placement];
  const across = places(width, row.width, startX, stepX), down = places(height, row.height, startY, stepY);
  const context = canvas.getContext("2d"), picture = context.createImageData(width, height), pixels = picture.data;
  const gain = row.high / scale; // of a byte, to a level of 0 to 255
  for (let y = 0, at = 0; y < height; y++) {
    const [top, bottom, v] = down[y], a = top * row.width, b = bottom * row.width;
    for (let x = 0; x < width; x++, at += 4) {
      const [left, right, u] = across[x];
      const above = map[a + left] + u * (map[a + right] - map[a + left]);
      const beneath = map[b + left] + u * (map[b + right] - map[b + left]);
      const level = Math.min(255, Math.round(gain * (above + v * (beneath - above))));
      pixels[at] = table[3 * level];
      pixels[at + 1] = table[3 * level + 1];
      pixels[at + 2] = table[3 * level + 2];
      pixels[at + 3] = level;
    }
  }
  context.putImageData(picture, 0, 0);
}

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function load(img, image) {
  if (image.jpeg !== null && !img.hasAttribute("src")) img.src = "data:image/jpeg;base64," + image.jpeg;
}

const mapTitle = (row) => `${data.sets[row.set]?.title ?? "Map"} of ${named(data.classes, row.class)}`;

/** An image with a row's map over it; `row` null for the bare image. */
function picture(image, row) {
  const frame = element("span", "picture"), img = element("img");
  img.alt = image.name;
  load(img, image);
  frame.append(img);
  if (row === null) return frame;
  const canvas = element("canvas");
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", mapTitle(row));
  frame.append(canvas);
  draw(canvas, row, image);
  if (row.error !== null || image.error !== null) frame.append(element("span", "error", row.error ?? image.error));
  return frame;
}

// --- cards -----------------------------------------------------------------------------------------------------------

const cards = images.map((image, index) => {
  const item = element("li"), button = element("button", "card"), frame = element("span", "picture");
  const card = { image, index, item, button, near: false, row: null, img: element("img"), canvas: element("canvas") };
  button.type = "button";
  card.img.alt = image.name;
  card.canvas.width = card.canvas.height = 1;
  card.canvas.setAttribute("role", "img");
  card.error = element("span", "error");
  frame.append(card.img, card.canvas, card.error);
  const words = element("span", "words");
  card.verdict = element("span", "verdict");
  card.number = element("span", "number");
  card.extra = element("span", "number");
  const name = element("span", "name", image.name.length > 22 ? `${image.name.slice(0, 6)}…${image.name.slice(-15)}` : image.name);
  name.title = image.name;
  words.append(card.verdict, card.number, card.extra, name);
  button.append(frame, words);
  button.addEventListener("click", () => enter(card));
  item.append(button);
  item.card = card;
  return card;
});

let visible = []; // the cards that pass the filters, in order

function paint(card) {
  if (card.near) {
    load(card.img, card.image);
    draw(card.canvas, card.row, card.image);
  } else {
    card.img.removeAttribute("src"); // decoded pixels of a thousand images would fill the memory
    card.canvas.width = card.canvas.height = 1;
  }
}

const watcher = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const card = entry.target.card;
    if (card.near !== entry.isIntersecting) {
      card.near = entry.isIntersecting;
      paint(card);
    }
  }
}, { rootMargin: "400px" });
for (const card of cards) watcher.observe(card.item);

function fill(card) {
  card.row = chosen(card.image);
  const { prediction, result } = known(card), row = card.row;
  card.result = result;
  card.prediction = prediction;
  const mark = { correct: "✓", wrong: "✗", unknown: "?" }[result];
  const label = named(data.classes, card.image.label), predicted = named(data.classes, prediction);
  card.verdict.textContent = result === "correct" ? `${mark} ${label}` : `${mark} ${label} → ${predicted}`;
  card.verdict.title = `true class ${label}, predicted ${predicted}`;
  card.verdict.classList.toggle("wrong", result === "wrong");
  card.number.textContent = row && row.class !== null ? `P(${data.classes[row.class]}) = ${shown(row.probability)}` : "";
  const sort = $("sort").value;
  card.extra.textContent = data.scores.includes(sort) ? `${titled(sort)}: ${shown(row?.[sort])}` : "";
  card.error.textContent = row === null ? "No map of this class" : row.error ?? card.image.error ?? "";
  card.error.hidden = card.error.textContent === "";
  if (row) card.canvas.setAttribute("aria-label", mapTitle(row));
}

function passes(card) {
  const is = (id, value) => $(id).value === "" || $(id).value === String(value);
  const sought = $("name").value.toLowerCase();
  return is("label", card.image.label) && is("prediction", card.prediction) && is("result", card.result)
    && is("split", card.image.split) && (is("fold", null) || card.image.rows.some((row) => row.fold === $("fold").value))
    && card.image.name.toLowerCase().includes(sought) && ranges.every((range) => range.holds(card.row));
}

function compare(first, second) {
  const by = $("sort").value, order = Number($("order").value);
  const value = (card) => (by === "name" ? card.image.name : card.row?.[by] ?? null);
  const a = value(first), b = value(second);
  if (a === b) return first.index - second.index;
  if (a === null || b === null) return a === null ? 1 : -1; // what has no number comes last in either order
  return a < b ? -order : order;
}

/** Bring everything up to date with the controls. */
function update() {
  for (const card of cards) fill(card);
  visible = cards.filter(passes).sort(compare);
  $("cards").replaceChildren(...visible.map((card) => card.item));
  const maps = visible.filter((card) => card.row && card.row.map !== null).length;
  const set = data.sets[Number($("method").value)];
  $("count").textContent = `${visible.length} of ${cards.length} images` + (maps < visible.length ? `, ${visible.length - maps} without a map` : "")
    + (set ? ` · ${set.method} at ${set.layer} of ${data.candidates[set.candidate]}` : "");
  $("nothing").hidden = visible.length > 0;
  redraw();
}

function redraw() {
  for (const card of cards) if (card.near) paint(card);
  const set = data.sets[Number($("method").value)], own = $("scale").value === "image";
  $("scale-end").textContent = own ? "each map’s peak" : `≥ ${set ? Number(set.scale.toPrecision(3)) : 0}`;
  const said = own
    ? "Each map on its own scale: do not compare images."
    : "One scale for all images of this candidate and method: faint means weak evidence.";
  $("scale-caption").textContent = `${said} ${set ? set.sign : ""}`;
  const canvas = document.querySelector("#legend canvas"), context = canvas.getContext("2d");
  const ramp = context.createImageData(256, 1), table = tables[$("colours").value];
  for (let level = 0; level < 256; level++) ramp.data.set([...table.subarray(3 * level, 3 * level + 3), level], 4 * level);
  context.putImageData(ramp, 0, 0);
  if ($("large").open) enlarge();
}
