// --- large view ------------------------------------------------------------------------------------------------------

let current = null;

function enter(card) {
  current = card;
  enlarge();
  if (!$("large").open) $("large").showModal();
  $("large").scrollTop = 0;
}

function fact(name, value) {
  const pair = element("div");
  pair.append(element("dt", "", name), element("dd", "", value));
  return pair;
}

function strip(list, image, found, caption) {
  list.replaceChildren(...found.map((row) => {
    const item = element("li");
    item.append(picture(image, row), element("span", "", caption(row)));
    return item;
  }));
}

function enlarge() {
  const { image, row } = current, explained = row !== null && row.set !== null;
  $("large-name").textContent = image.name;
  $("large-pictures").replaceChildren(picture(image, null), picture(image, row ?? { map: null, class: null, set: Number($("method").value), error: "No map of this class" }));
  const facts = [["True class", named(data.classes, image.label)], ["Predicted", named(data.classes, current.prediction)]];
  if (image.group) facts.push(["Group", image.group]);
  if (explained) {
    const of = named(data.classes, row.class), set = data.sets[row.set];
    facts.push([`P(${of})`, shown(row.probability)], [`Logit of ${of}`, shown(row.logit)], ["Candidate", data.candidates[set.candidate]]);
    facts.push(["Method", set.method], ["Layer", set.layer], ["Fold", row.fold], ["Part", image.split], ["Map", `${row.height} × ${row.width}`]);
    facts.push(["Scale", `${shown(scaleOf(row))}, ${$("scale").value === "shared" ? "shared" : "its own"}`]);
    for (const score of data.scores) facts.push([titled(score), shown(row[score])]);
  }
  $("facts").replaceChildren(...facts.map(([name, value]) => fact(name, value)));
  const classes = explained ? image.rows.filter((other) => other.set === row.set && other.fold === row.fold && other.class !== null) : [];
  strip($("classes"), image, classes, (other) => `${data.classes[other.class]}: ${shown(other.probability)}`);
  const others = explained ? image.rows.filter((other) => other.class === row.class && other !== row) : [];
  strip($("others"), image, others, (other) => `${data.sets[other.set].title}, ${data.candidates[data.sets[other.set].candidate]}, fold ${other.fold}`);
  $("others-heading").hidden = others.length === 0;
  const at = visible.indexOf(current);
  $("previous").disabled = at <= 0;
  $("next").disabled = at === visible.length - 1;
}

function step(by) {
  const next = visible[visible.indexOf(current) + by];
  if (next) enter(next);
}

$("previous").addEventListener("click", () => step(-1));
$("next").addEventListener("click", () => step(1));
$("close").addEventListener("click", () => $("large").close());
$("large").addEventListener("click", (event) => { if (event.target === $("large")) $("large").close(); });
$("large").addEventListener("close", () => current.button.focus());

// --- keyboard --------------------------------------------------------------------------------------------------------

/** Cards in one row of the grid. */
function columns() {
  const top = visible[0].item.offsetTop;
  const next = visible.findIndex((card) => card.item.offsetTop !== top);
  return next < 0 ? visible.length : next;
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("select, input:not([type=checkbox])");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "o") {
    $("overlay").checked = !$("overlay").checked;
    toggle();
  } else if ($("large").open) {
    if (event.key === "ArrowLeft") step(-1);
    if (event.key === "ArrowRight") step(1);
  } else if (event.key.startsWith("Arrow") && visible.length) {
    const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns(), ArrowDown: columns() }[event.key];
    const at = visible.findIndex((card) => card.button === document.activeElement);
    if (at < 0 && event.target !== document.body) return;
    const next = visible[at < 0 ? 0 : at + move];
    if (!next) return;
    next.button.focus();
    event.preventDefault();
  }
});

// --- controls --------------------------------------------------------------------------------------------------------

function options(select, pairs) {
  const before = select.value;
  select.replaceChildren(...pairs.map(([value, text]) => {
    const option = element("option", "", text);
    option.value = value;
    return option;
  }));
  if (pairs.some(([value]) => String(value) === before)) select.value = before;
  select.closest("label").hidden = pairs.length < 2;
}

/** The methods that explain the chosen candidate; the one that was chosen stays, if it can. */
function listMethods() {
  const before = data.sets[Number($("method").value)]?.title;
  const sets = data.sets.map((set, at) => [at, set]).filter(([, set]) => set.candidate === Number($("candidate").value));
  options($("method"), sets.map(([at, set]) => [at, set.title]));
  const same = sets.find(([, set]) => set.title === before) ?? sets[0];
  if (same) $("method").value = same[0];
}

const ranges = numbers.filter((name) => rows.some((row) => row[name] !== null)).map((name) => {
  const label = element("label", "range", titled(name)), pair = element("span"), present = rows.map((row) => row[name]).filter((value) => value !== null);
  const [low, high] = [["lowest", (a, b) => Math.min(a, b)], ["highest", (a, b) => Math.max(a, b)]].map(([end, of]) => {
    const input = element("input");
    input.type = "number";
    input.step = "any";
    input.placeholder = shown(present.reduce(of));
    input.setAttribute("aria-label", `${titled(name)}, ${end}`);
    input.addEventListener("input", update);
    return input;
  });
  pair.append(low, "–", high);
  label.append(pair);
  $("ranges").append(label);
  const holds = (row) => {
    const value = row?.[name] ?? null;
    if (low.value === "" && high.value === "") return true;
    return value !== null && (low.value === "" || value >= Number(low.value)) && (high.value === "" || value <= Number(high.value));
  };
  return { holds, clear: () => { low.value = high.value = ""; } };
});

const filters = ["label", "prediction", "result", "split", "fold", "name"];
const anything = (pairs) => [["", "all"], ...pairs];
const eachClass = data.classes.map((name, index) => [index, name]);
const present = (values) => [...new Set(values)].sort((a, b) => a.localeCompare(b, "en", { numeric: true })).map((value) => [value, value]);

function toggle() {
  document.body.classList.toggle("plain", !$("overlay").checked);
}

options($("candidate"), data.candidates.map((name, index) => [index, name]));
listMethods();
options($("class"), [["predicted", "the predicted class"], ["true", "the true class"], ...eachClass]);
options($("label"), anything(eachClass));
options($("prediction"), anything(eachClass));
options($("sort"), [["index", "order in the table"], ["name", "name"], ...numbers.map((name) => [name, titled(name)])]);
for (const [id, values] of [["split", images.map((image) => image.split)], ["fold", rows.map((row) => row.fold)]]) {
  const found = present(values);
  options($(id), found.length > 1 ? anything(found) : [["", "all"]]);
}
$("opacity").value = data.opacity;
$("opacity").addEventListener("input", () => root.style.setProperty("--opacity", $("opacity").value));
$("overlay").addEventListener("change", toggle);
$("candidate").addEventListener("change", () => { listMethods(); update(); });
for (const id of ["method", "class", "sort", "order", ...filters]) $(id).addEventListener("input", update);
for (const id of ["scale", "colours"]) $(id).addEventListener("input", redraw);
$("clear").addEventListener("click", () => {
  for (const id of filters) $(id).value = "";
  for (const range of ranges) range.clear();
  update();
});
root.style.setProperty("--opacity", data.opacity);
update();
