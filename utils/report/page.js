// The report of an evaluation. common.js comes before.

const ALL = "*";
const VERDICTS = {
  tp: { text: "found", wrong: false },
  tn: { text: "passed", wrong: false },
  fp: { text: "false alarm", wrong: true },
  fn: { text: "missed", wrong: true },
};
const SLIDER_STEPS = 1000;
const BINS = 60;
const VIEW_TEXTS = ["image", "anomaly map on the image", "image rebuilt from the nearest normal patches"];

const views = data.views;

// The current choices. Thresholds belong to the views, so that each category keeps its own.
const state = { setting: null, category: null, shown: [], position: -1, opener: null };
for (const view of views) {
  view.best = view.threshold;
  view.low = Math.min(...view.images.map((image) => image.score));
  view.high = Math.max(...view.images.map((image) => image.score));
  view.images.forEach((image, number) => Object.assign(image, { view, number }));
}

function verdict(image) {
  // Without a threshold no image counts as defective, as in the metrics.
  const found = image.view.threshold !== null && image.score >= image.view.threshold;
  return (found === image.bad ? "t" : "f") + (found ? "p" : "n");
}

// How far a score is on the wrong side of the threshold, relative to the range of its category.
function hardness(image) {
  const { threshold, low, high } = image.view;
  const margin = image.score - (threshold === null ? low : threshold);
  return ((image.bad ? -1 : 1) * margin) / (high - low || 1);
}

function currentViews() {
  return views.filter(
    (view) =>
      view.setting === state.setting &&
      (state.category === ALL || view.category === state.category),
  );
}

/* ---- summary and curves ---- */

function showSetting(value) {
  state.setting = value;
  for (const part of document.querySelectorAll("[data-setting]")) {
    part.hidden = part.dataset.setting !== value;
  }
}

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((other) => other.setAttribute("aria-sort", "none"));
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const key = (row) => {
        const cell = row.cells[column];
        if (column === 0) return cell.textContent.trim();
        return cell.dataset.value === "" ? NaN : Number(cell.dataset.value);
      };
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = ascending ? [key(a), key(b)] : [key(b), key(a)];
        if (column === 0) return compareNames(x, y);
        // Values that were not measured come last in either order.
        if (Number.isNaN(key(a)) || Number.isNaN(key(b))) return Number.isNaN(key(a)) - Number.isNaN(key(b));
        return x - y;
      });
      table.tBodies[0].append(...rows);
    });
  });
}

/* ---- gallery ---- */

function fileOf(image) {
  return state.category === ALL ? `${image.view.category} / ${image.file}` : image.file;
}

function judgeCard(image) {
  const kind = verdict(image);
  if (image.kind !== kind) {
    image.kind = kind;
    image.card.className = kind;
    image.parts.badge.textContent = VERDICTS[kind].text;
  }
  const { low, high, threshold } = image.view;
  setGauge(image.parts.gauge, image.score, threshold, low, high);
  image.parts.button.setAttribute(
    "aria-label",
    `${image.view.category}, ${image.type}, ${image.file}: score ${digits(image.score)}, ${VERDICTS[kind].text}`,
  );
}

function matches(image) {
  const type = find("type").value;
  if (type !== ALL && image.type !== type) return false;
  const wanted = find("verdict").value;
  if (wanted === "all") return true;
  if (wanted === "wrong" || wanted === "right") {
    return VERDICTS[image.kind].wrong === (wanted === "wrong");
  }
  return image.kind === wanted;
}

const ORDERS = {
  hardest: (a, b) => hardness(b) - hardness(a),
  highest: (a, b) => b.score - a.score,
  lowest: (a, b) => a.score - b.score,
  name: (a, b) =>
    compareNames(a.view.category, b.view.category) ||
    compareNames(a.type, b.type) ||
    compareNames(a.file, b.file),
};

// Rebuild the gallery for another category or setting.
function buildGallery() {
  const images = currentViews().flatMap((view) => view.images);
  find("gallery").replaceChildren(
    ...images.map((image) =>
      makeCard(image, { aspect: image.view.aspect, type: image.type, file: fileOf(image) }),
    ),
  );
  for (const image of images) image.kind = null;
  const types = [...new Set(images.map((image) => image.type))];
  const select = find("type");
  const before = select.value;
  select.replaceChildren(
    new Option("all types", ALL),
    ...types.map((type) => new Option(type, type)),
  );
  select.value = types.includes(before) ? before : ALL;
  const one = currentViews().length === 1 ? currentViews()[0] : null;
  find("judge").classList.toggle("many", one === null);
  const distribution = find("distribution");
  find("scores").hidden = !(one && one.distribution);
  if (one && one.distribution) {
    distribution.src = one.distribution;
    distribution.alt = `Scores of the test images of ${one.category} by type of defect`;
  }
  if (one) drawHistogram(one);
  judge();
}

// Update verdicts, counts, filter and order after a change of a threshold or a control.
function judge({ keepOrder = false } = {}) {
  const images = currentViews().flatMap((view) => view.images);
  images.forEach(judgeCard);
  const counts = { tp: 0, fp: 0, fn: 0, tn: 0 };
  for (const image of images) counts[image.kind] += 1;
  for (const [kind, count] of Object.entries(counts)) find(kind).textContent = count;
  const rate = (part, whole) => (whole ? `${((100 * part) / whole).toFixed(1)} %` : "–");
  find("precision").textContent = rate(counts.tp, counts.tp + counts.fp);
  find("recall").textContent = rate(counts.tp, counts.tp + counts.fn);
  state.shown = images.filter(matches);
  const chosen = new Set(state.shown);
  for (const image of images) image.card.hidden = !chosen.has(image);
  // While the slider is dragged, cards stay in place.
  if (!keepOrder) {
    state.shown.sort(ORDERS[find("order").value]);
    find("gallery").append(...state.shown.map((image) => image.card));
  } else {
    const place = new Map([...find("gallery").children].map((card, number) => [card, number]));
    state.shown.sort((a, b) => place.get(a.card) - place.get(b.card));
  }
  find("shown").textContent = images.length
    ? `${state.shown.length} of ${images.length} images`
    : "No test images yet.";
  showThreshold();
}

/* ---- threshold ---- */

function sliderRange(view) {
  const air = 0.03 * (view.high - view.low || Math.abs(view.high) || 1);
  return [view.low - air, view.high + air];
}

function showThreshold() {
  const [view] = currentViews();
  if (!view || currentViews().length !== 1) {
    find("reading").textContent = "";
    return;
  }
  const [low, high] = sliderRange(view);
  const threshold = view.threshold ?? high; // the slider has no place for none
  const reading = digits(view.threshold ?? NaN);
  find("threshold").value = Math.round((SLIDER_STEPS * (threshold - low)) / (high - low));
  find("threshold").setAttribute("aria-valuetext", view.threshold === null ? "none" : reading);
  find("reading").textContent = reading;
  find("reset").hidden = view.threshold === view.best;
  find("reset").textContent = view.best === null ? "none" : "best F1";
  const line = find("histogram").querySelector(".line");
  if (!line) return;
  line.setAttribute("visibility", view.threshold === null ? "hidden" : "visible");
  line.setAttribute("transform", `translate(${(BINS * (threshold - low)) / (high - low)} 0)`);
}

function moveThreshold() {
  const [view] = currentViews();
  const [low, high] = sliderRange(view);
  view.threshold = low + ((high - low) * find("threshold").value) / SLIDER_STEPS;
  judge({ keepOrder: true });
}

function drawHistogram(view) {
  const svg = find("histogram");
  const [low, high] = sliderRange(view);
  const bars = { good: new Array(BINS).fill(0), bad: new Array(BINS).fill(0) };
  for (const image of view.images) {
    const bin = Math.min(BINS - 1, Math.floor((BINS * (image.score - low)) / (high - low)));
    bars[image.bad ? "bad" : "good"][bin] += 1;
  }
  const tallest = Math.max(1, ...bars.good, ...bars.bad);
  svg.setAttribute("viewBox", `0 0 ${BINS} 2`);
  const shape = (name, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    return element;
  };
  const parts = [];
  for (const [kind, heights] of Object.entries(bars)) {
    heights.forEach((count, bin) => {
      if (!count) return;
      const height = 0.06 + (0.92 * count) / tallest;
      const y = kind === "good" ? 1 - height : 1;
      parts.push(shape("rect", { class: kind, x: bin + 0.08, y, width: 0.84, height }));
    });
  }
  parts.push(shape("line", { class: "axis", x1: 0, x2: BINS, y1: 1, y2: 1 }));
  parts.push(shape("line", { class: "line", x1: 0, x2: 0, y1: 0, y2: 2 }));
  svg.replaceChildren(...parts);
}

/* ---- large figure ---- */

function titleOf(image) {
  return `${image.view.category} / ${image.type} / ${image.file}`;
}

function noteOf(image) {
  const kind = verdict(image);
  return [
    make("span", { className: `badge ${kind}` }, VERDICTS[kind].text),
    ` score ${digits(image.score)}, threshold ${digits(image.view.threshold ?? NaN)}`,
  ];
}

function describe(image, file) {
  const name = `${image.view.category}, ${image.type}, ${image.file}`;
  if (file === image.large) {
    return `${name}: the image, the image rebuilt from its nearest normal patches, its anomaly map, overlay and ground truth`;
  }
  if (file === image.why) {
    return `${name}: its most anomalous patches next to the nearest training patches`;
  }
  return `${name}: ${VIEW_TEXTS.join(", ")}`;
}

function showDetails(image) {
  // The heading has the category, so its folder is omitted from the file names.
  showPatches(image, (file) => file.replace(`${image.view.category}/`, ""));
}

/* ---- start ---- */

function start() {
  const settings = [...new Set(views.map((view) => view.setting))];
  const chooser = find("setting");
  const first = chooser ? chooser.value : settings[0];
  if (first !== undefined) showSetting(first);
  const categories = [...new Set(views.map((view) => view.category))];
  find("category").replaceChildren(
    ...categories.map((name) => new Option(name, name)),
    ...(categories.length > 1 ? [new Option("all categories", ALL)] : []),
  );
  state.category = categories[0] ?? ALL;
  if (chooser) {
    chooser.addEventListener("change", () => {
      showSetting(chooser.value);
      buildGallery();
    });
  }
  document.querySelectorAll("table.overview").forEach(makeSortable);
  for (const link of document.querySelectorAll("[data-category]")) {
    link.addEventListener("click", () => {
      state.category = find("category").value = link.dataset.category;
      buildGallery();
      find("images").scrollIntoView();
      find("category").focus({ preventScroll: true });
    });
  }
  find("category").addEventListener("change", () => {
    state.category = find("category").value;
    buildGallery();
  });
  for (const id of ["type", "verdict", "order"]) find(id).addEventListener("change", () => judge());
  for (const input of document.querySelectorAll("input[name=view]")) {
    input.addEventListener("change", () => (find("gallery").dataset.view = input.value));
  }
  find("threshold").max = SLIDER_STEPS;
  find("threshold").addEventListener("input", moveThreshold);
  find("threshold").addEventListener("change", () => judge());
  find("reset").addEventListener("click", () => {
    const [view] = currentViews();
    view.threshold = view.best;
    judge();
    find("threshold").focus();
  });
  startViewer();
  buildGallery();
}

startTheme();
start();
