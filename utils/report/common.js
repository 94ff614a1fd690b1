"use strict";
// What the pages share. The script of each page comes after this one. It has the object `state`
// with the `shown` images, the `position` of the large one and its `opener`, and the functions
// titleOf, noteOf, describe and showDetails of an image.
// The page shows the JSON in #data. File names are inserted as text only, never as markup.

const find = (id) => document.getElementById(id);
const data = JSON.parse(find("data").textContent);

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "className") element.className = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

function digits(value) {
  return Number.isFinite(value) ? String(Number(value.toPrecision(4))) : "–";
}

// Numbers within names are ordered by value: 2 comes before 10.
function compareNames(a, b) {
  return a.localeCompare(b, undefined, { numeric: true });
}

/* ---- cards ---- */

// A card of the gallery; `type` and `file` are its two lines of text.
function makeCard(image, { aspect, type, file }) {
  const button = make("button", { type: "button", className: "card" });
  const thumb = make("span", { className: "thumb" });
  thumb.style.aspectRatio = String(aspect);
  if (image.thumb) {
    const img = make("img", { loading: "lazy", decoding: "async", src: image.thumb, alt: "" });
    thumb.append(img);
  } else {
    thumb.append(make("span", { className: "empty" }, "no thumbnail"));
  }
  const badge = make("span", { className: "badge" });
  thumb.append(badge);
  const text = make(
    "span",
    { className: "text" },
    make("span", { className: "type" }, type),
    make("span", { className: "file" }, file),
    make("span", { className: "score" }, digits(image.score)),
    make("span", { className: "gauge" }, make("i"), make("b")),
  );
  button.append(thumb, text);
  button.addEventListener("click", () => openLarge(state.shown.indexOf(image), button));
  image.card = make("li", {}, button);
  image.parts = { button, badge, gauge: text.lastChild };
  return image.card;
}

// Show a score and a threshold, null for none, on a scale from low to high.
function setGauge(gauge, score, threshold, low, high) {
  const share = (value) => `${(100 * (value - low)) / (high - low || 1)}%`;
  gauge.firstChild.style.width = share(score);
  gauge.lastChild.hidden = threshold === null;
  if (threshold !== null) gauge.lastChild.style.left = share(threshold);
}

/* ---- large figure ---- */

function openLarge(position, opener) {
  state.opener = opener;
  showLarge(position);
  if (find("large").open) return;
  find("large").showModal();
  find("next").focus();
}

function showLarge(position) {
  const count = state.shown.length;
  if (!count) return;
  state.position = (position + count) % count;
  const image = state.shown[state.position];
  state.opener = image.parts.button;
  find("large-title").textContent = titleOf(image);
  find("large-note").replaceChildren(...noteOf(image), ` · ${state.position + 1} of ${count}`);
  const side = document.querySelector("input[name=side]:checked").value;
  for (const input of document.querySelectorAll("input[name=side]")) {
    input.disabled = !image[input.value];
  }
  find("sides").hidden = !image.large && !image.why;
  const file = image[side] || image.large || image.why || image.thumb;
  const figure = find("large-image");
  const link = find("large-link");
  if (file) {
    figure.src = file;
    figure.alt = describe(image, file);
    link.href = file;
  } else {
    figure.removeAttribute("src");
    figure.alt = "No figure was drawn for this image";
    link.removeAttribute("href");
  }
  showDetails(image);
  // Load the previous and the next figure ahead.
  for (const step of [1, -1]) {
    const near = state.shown[(state.position + step + count) % count];
    const next = near[side] || near.large || near.thumb;
    if (next) new Image().src = next;
  }
}

// Show the most anomalous patches; `within` shortens the names of training images.
function showPatches(image, within) {
  const place = find("patches");
  place.hidden = !image.patches.length;
  const rows = image.patches.map(([row, column, score, nearest], number) =>
    make(
      "tr",
      {},
      make("td", {}, String(number + 1)),
      make("td", {}, `row ${row}, column ${column}`),
      make("td", {}, digits(score)),
      make(
        "td",
        {},
        ...nearest.flatMap(([file, r, c, version, distance], n) => [
          ...(n ? [make("br")] : []),
          `${within(file)}${version ? ` (${version})` : ""}, patch row ${r}, column ${c}; distance ${digits(distance)}`,
        ]),
      ),
    ),
  );
  const heads = ["", "patch", "score", "nearest normal patch"];
  place.replaceChildren(
    make(
      "table",
      {},
      make("caption", {}, "Its most anomalous patches and the nearest normal patches"),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows),
    ),
  );
}

function changeSide() {
  const other = document.querySelector("input[name=side]:not(:checked)");
  if (other.disabled) return;
  other.checked = true;
  showLarge(state.position);
}

function onKey(event) {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  // The arrow keys move between radio buttons while one has the focus.
  const inRadio = event.target.type === "radio";
  const steps = { ArrowLeft: -1, ArrowRight: 1 };
  if (event.key in steps && !inRadio) showLarge(state.position + steps[event.key]);
  else if (event.key === "Home" && !inRadio) showLarge(0);
  else if (event.key === "End" && !inRadio) showLarge(state.shown.length - 1);
  else if (event.key.toLowerCase() === "e") changeSide();
  else return;
  event.preventDefault();
}

/* ---- theme ---- */

function setTheme(name) {
  document.documentElement.dataset.theme = name;
  try {
    localStorage.setItem("patchcore-theme", name);
  } catch {
    // Some browsers store nothing for local files. The system's theme is used next time.
  }
}

function changeTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const now = document.documentElement.dataset.theme || system;
  setTheme(now === "dark" ? "light" : "dark");
}

function startTheme() {
  try {
    const kept = localStorage.getItem("patchcore-theme");
    if (kept) document.documentElement.dataset.theme = kept;
  } catch {
    // As above.
  }
  find("theme").addEventListener("click", changeTheme);
}

function startViewer() {
  for (const input of document.querySelectorAll("input[name=side]")) {
    input.addEventListener("change", () => showLarge(state.position));
  }
  const dialog = find("large");
  find("close").addEventListener("click", () => dialog.close());
  find("previous").addEventListener("click", () => showLarge(state.position - 1));
  find("next").addEventListener("click", () => showLarge(state.position + 1));
  dialog.addEventListener("keydown", onKey);
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  dialog.addEventListener("close", () => state.opener?.focus());
}
