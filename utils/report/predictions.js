// The predictions of an inference. common.js comes before.

const VERDICTS = { anomaly: "tp", normal: "tn" };
const { images, threshold, aspect, texts } = data;
const state = { shown: [], position: -1, opener: null };
const scores = images.map((image) => image.score).filter(Number.isFinite);
const low = Math.min(threshold, ...scores);
const high = Math.max(threshold, ...scores);
images.forEach((image, number) => Object.assign(image, { number }));

// An undefined score is null in JSON, and comes first.
const scoreOf = (image) => image.score ?? Infinity;
const ORDERS = {
  highest: (a, b) => a.number - b.number,
  lowest: (a, b) => b.number - a.number,
  name: (a, b) => compareNames(a.path, b.path) || a.number - b.number,
};

function comparison(image) {
  const parts = [];
  if (image.ratio !== null) parts.push(`${digits(image.ratio)} × threshold`);
  if (image.p !== null) parts.push(`p = ${digits(image.p)}`);
  return parts.join(", ");
}

// Short enough for a card.
function shortComparison(image) {
  const parts = [];
  if (image.ratio !== null) parts.push(`${Number(image.ratio.toPrecision(3))}×`);
  if (image.p !== null) parts.push(`p\u00a0=\u00a0${Number(image.p.toPrecision(2))}`);
  return parts.join(" ");
}

function titleOf(image) {
  return image.path;
}

function noteOf(image) {
  const compared = comparison(image);
  return [
    make("span", { className: `badge ${VERDICTS[image.verdict]}` }, image.verdict),
    ` score ${digits(image.score)}, threshold ${digits(threshold)}`,
    compared ? ` (${compared})` : "",
    image.place ? ` · ${image.place}` : "",
  ];
}

function describe(image, file) {
  if (file === image.large) return `${image.path}: the image and its anomaly map`;
  if (file === image.why) {
    return `${image.path}: its most anomalous patches next to the nearest training patches`;
  }
  return `${image.path}: image, anomaly map on the image`;
}

function showDetails(image) {
  showPatches(image, (file) => file);
  const place = find("patches");
  if (!image.patches.length) place.replaceChildren();
  if (!image.regions.length) return;
  place.hidden = false;
  const rows = image.regions.map((region, number) =>
    make("tr", {}, ...[number + 1, ...region.slice(0, 5), digits(region[5])].map((value) => make("td", {}, String(value)))),
  );
  const heads = ["", "left", "top", "right", "bottom", "area", "largest map value"];
  place.prepend(
    make(
      "table",
      {},
      make("caption", {}, "Its largest anomalous regions, box and area in pixels of the image"),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows),
    ),
  );
}

function buildCard(image) {
  // File names repeat in folders of defect types.
  const name = image.path.split("/").slice(-2).join("/");
  const card = makeCard(image, { aspect, type: name, file: shortComparison(image) || image.place });
  const { button, badge, gauge } = image.parts;
  card.className = VERDICTS[image.verdict];
  badge.textContent = image.verdict;
  button.title = image.path;
  button.setAttribute("aria-label", `${image.path}: score ${digits(image.score)}, ${image.verdict}`);
  setGauge(gauge, Math.min(scoreOf(image), high), threshold, low, high);
  return card;
}

function filter() {
  const wanted = find("verdict").value;
  const part = find("name").value.toLowerCase();
  const matches = (image) =>
    (wanted === "all" || image.verdict === wanted) && image.path.toLowerCase().includes(part);
  state.shown = images.filter(matches).sort(ORDERS[find("order").value]);
  const chosen = new Set(state.shown);
  for (const image of images) image.card.hidden = !chosen.has(image);
  find("gallery").append(...state.shown.map((image) => image.card));
  find("shown").textContent = images.length
    ? `${state.shown.length} of ${images.length} images. ${texts.limit}`
    : texts.limit;
}

function start() {
  find("gallery").replaceChildren(...images.map(buildCard));
  for (const id of ["verdict", "order"]) find(id).addEventListener("change", filter);
  find("name").addEventListener("input", filter);
  for (const input of document.querySelectorAll("input[name=view]")) {
    input.addEventListener("change", () => (find("gallery").dataset.view = input.value));
  }
  startViewer();
  filter();
}

startTheme();
start();
