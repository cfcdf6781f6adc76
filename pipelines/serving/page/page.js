// An image from anywhere -> POST /classify/NAME -> POST /explain/NAME for the class that is chosen.

const at = (id) => document.getElementById(id);
const PARTS = ["decode", "queue", "network"];
const SAMPLE_PX = 512;
// A JPEG has its Exif tags in its first segments, none of which is longer.
const EXIF_BYTES = 65536;
// From here on down, enlarged pixels are shown as they are.
const COARSE_PX = 96;
const [NO_ROWS, NO_HINT] = [[...at("rows").children], at("hint").textContent];

// The image that is asked about, what was explained of it so far by class, and the way to give up.
let image = null;
let explanations = new Map();
let asking = new AbortController();

async function ask(path, body) {
  const begun = performance.now();
  const options = { method: body ? "POST" : "GET", body, signal: asking.signal };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error);
  return { answer, timing: response.headers.get("Server-Timing"), tookMs: performance.now() - begun };
}

const modelPath = (verb) => `/${verb}/${encodeURIComponent(at("model").value)}`;

async function listModels() {
  const { models } = (await ask("/classify")).answer;
  at("model").replaceChildren(...models.map(({ name }) => new Option(name)));
  showShell();
}

async function classify() {
  await listed;
  asking.abort();
  asking = new AbortController();
  explanations = new Map();
  say("");
  at("answer").ariaBusy = "true";
  try {
    const { answer, timing, tookMs } = await ask(modelPath("classify"), image);
    showClasses(answer);
    showTimes(timing, tookMs);
  } catch (error) {
    if (error.name === "AbortError") return;
    showNothing();
    throw error;
  }
  at("answer").ariaBusy = "false";
  await explain();
}

async function explain() {
  const chosen = at("rows").querySelector(":checked");
  at("heat").hidden = !explanations.has(chosen.value);
  if (!explanations.has(chosen.value)) {
    const path = `${modelPath("explain")}?class_id=${chosen.value}`;
    const { answer } = await ask(path, image);
    explanations.set(chosen.value, answer);
  }
  // Another one may have been chosen in the meantime.
  if (chosen.checked) showExplanation(explanations.get(chosen.value));
}

// Does the work and tells of its failure; what a newer question has cut short is no failure.
async function attempt(work) {
  try {
    await work();
  } catch (error) {
    if (error.name === "AbortError") return;
    say(error instanceof TypeError ? "The server cannot be reached." : error.message);
  }
}

function say(problem) {
  at("error").textContent = problem;
}

function showClasses({ model, version, predictions }) {
  at("legend").textContent = `Most probable to ${model}, version ${version}`;
  at("rows").replaceChildren(...predictions.map(classRow));
  at("rows").querySelector("input").checked = true;
  at("status").textContent = predictions
    .map((row) => `${row.class}: ${percent(row.probability)}`)
    .join(", ");
}

function classRow(prediction, place) {
  const row = at("row").content.cloneNode(true);
  const [input, label] = [row.querySelector("input"), row.querySelector("label")];
  input.id = label.htmlFor = `class-${place}`;
  input.value = prediction.class_id;
  row.querySelector(".name").textContent = prediction.class;
  row.querySelector(".percent").textContent = percent(prediction.probability);
  row.querySelector(".bar span").style.setProperty("--probability", prediction.probability);
  return row;
}

const percent = (p) => (p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(1)}%`);

// The server tells its own parts; the rest of the round trip is the way there and back.
function showTimes(timing, tookMs) {
  const spent = new Map([["round trip", tookMs]]);
  for (const [, name, ms] of (timing ?? "").matchAll(/(\w+);dur=([\d.]+)/g)) {
    if (PARTS.includes(name)) spent.set(name, Number(ms));
  }
  at("times").replaceChildren(...[...spent].map(timeCell));
  at("times").hidden = false;
}

function timeCell([name, ms]) {
  const [cell, term, value] = ["div", "dt", "dd"].map((kind) => document.createElement(kind));
  term.textContent = name;
  value.textContent = `${ms.toFixed(ms < 10 ? 1 : 0)} ms`;
  cell.append(term, value);
  return cell;
}

function showExplanation({ class: name, crop, overlay, heat }) {
  const found = heat.flat().some((value) => value > 0);
  at("crop").src = crop;
  at("crop").alt = "The part of the image that the network saw";
  at("heat").src = overlay;
  at("heat").alt = found ? `Where the network found ${name}` : "";
  at("heat").hidden = at("heat-control").hidden = false;
  at("hint").textContent = found
    ? `Bright is where the network found “${name}”. Choose another class to see its own.`
    : `Nothing in the picture speaks for “${name}”.`;
}

function showNothing() {
  at("rows").replaceChildren(...NO_ROWS);
  at("legend").textContent = "Most probable";
  at("hint").textContent = NO_HINT;
  at("status").textContent = "";
  at("answer").ariaBusy = "false";
  for (const id of ["times", "heat", "heat-control"]) at(id).hidden = true;
}

function showShell() {
  const address = location.origin + modelPath("classify");
  at("shell").textContent = `curl --data-binary @image.jpg ${address}`;
}

function showOpacity() {
  at("opacity-value").textContent = `${at("opacity").value}%`;
  at("heat").style.opacity = at("opacity").value / 100;
}

async function open(file) {
  image = await upright(file);
  at("crop").src = URL.createObjectURL(image);
  at("crop").alt = "";
  at("crop").hidden = false;
  at("heat").hidden = true;
  at("stage").scrollIntoView();
  await classify();
}

// What was pasted or dropped may hold no file.
function openFirst({ files }, missing) {
  if (files.length) attempt(() => open(files[0]));
  else say(missing);
}

// Cameras write down how a picture is to be turned. Browsers do it, the networks' decoding does not.
async function upright(file) {
  if ((await orientation(file)) === 1) return file;
  const turned = await createImageBitmap(file);
  return drawn(turned, turned.width, turned.height);
}

// The Exif tag 0x0112 of a JPEG: from 1, as it is, to 8.
async function orientation(file) {
  const head = new DataView(await file.slice(0, EXIF_BYTES).arrayBuffer());
  try {
    for (let from = 2; head.getUint16(0) === 0xffd8; from += 2 + head.getUint16(from + 2)) {
      if (head.getUint32(from + 4) !== 0x45786966) continue;
      const tiff = from + 10;
      const little = head.getUint16(tiff) === 0x4949;
      const tags = tiff + head.getUint32(tiff + 4, little);
      for (let number = 0; number < head.getUint16(tags, little); number++) {
        const tag = tags + 2 + 12 * number;
        if (head.getUint16(tag, little) === 0x0112) return head.getUint16(tag + 8, little);
      }
    }
  } catch (error) {
    // The head ends before there was a tag.
    if (!(error instanceof RangeError)) throw error;
  }
  return 1;
}

function drawn(picture, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  canvas.getContext("2d").drawImage(picture, 0, 0, width, height);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.95 });
}

at("model").addEventListener("change", () => {
  showShell();
  if (image) attempt(classify);
});
at("rows").addEventListener("change", () => attempt(explain));
at("opacity").addEventListener("input", showOpacity);
at("crop").addEventListener("load", () => {
  at("crop").classList.toggle("coarse", at("crop").naturalWidth <= COARSE_PX);
});
at("crop").addEventListener("error", () => {
  at("crop").hidden = true;
});

for (const input of [at("file"), at("camera")]) {
  input.addEventListener("change", () => {
    const [file] = input.files;
    // So that the same file can be chosen again.
    input.value = "";
    attempt(() => open(file));
  });
}

at("samples").addEventListener("click", ({ target }) => {
  const drawing = target.closest("button")?.firstElementChild;
  if (drawing) attempt(async () => open(await drawn(drawing, SAMPLE_PX, SAMPLE_PX)));
});

addEventListener("paste", ({ clipboardData }) => {
  openFirst(clipboardData, "The clipboard holds no image.");
});

for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("dropping", kind === "dragover");
    if (kind === "drop") openFirst(event.dataTransfer, "What was dropped is no image file.");
  });
}

showOpacity();
const listed = attempt(listModels);
