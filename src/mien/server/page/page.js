// The page: a picture or the camera goes to /v1/predict, the answer is drawn over it.

const $ = (id) => document.getElementById(id);
const stage = $("stage"), frame = $("frame"), photo = $("photo"), video = $("video");
const FRAME_WIDTH = 640; // of the camera's frames, in pixels: enough for faces, quick to send
const ANNOUNCE_EVERY = 3000; // ms between two announcements while the camera runs

let model = null; // what /v1/models says
let token = "";
let chosen = null; // the file that is shown
let camera = null; // the stream while the camera is on
let asked = 0; // requests for a picture so far: the answer of an older one is not drawn

// --- asking -----------------------------------------------------------------------------------

class Refusal extends Error {
  constructor(message, status, wait) {
    super(message);
    this.status = status;
    this.wait = wait;
  }
}

async function call(address, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(address, { ...options, headers });
  } catch {
    throw new Refusal("The server does not answer. Is it still running?", 0);
  }
  if (answer.ok) return answer.json();
  const problem = await answer.json().catch(() => ({}));
  throw new Refusal(
    problem.detail ?? `The server answers ${answer.status}.`,
    answer.status,
    Number(answer.headers.get("Retry-After") ?? 0),
  );
}

async function predict(blob, name) {
  const form = new FormData();
  form.append("images", blob, name);
  const wish = new URLSearchParams({
    attention: $("attention").checked,
    detector: $("whole").checked ? "none" : "auto",
  });
  const answer = await call(`v1/predict?${wish}`, { method: "POST", body: form });
  return answer.images[0];
}

async function introduce() {
  const { models, limits } = await call("v1/models");
  model = { ...models[0], limits };
  $("model").textContent =
    `Model: ${model.name}. Faces are found by: ${model.detector === "none" ? "nobody" : model.detector}.`;
  if (model.attention === null) {
    disable($("attention"), $("attention-note"), "The model in use says nothing of where it looks: it has no attention output.");
  } else {
    note($("attention-note"), `Dark is what it passes over. The map: ${model.attention}.`);
  }
  if (model.detector === "none") {
    $("whole").checked = true;
    disable($("whole"), $("whole-note"), "This server finds no faces, so each picture is taken as one.");
  }
}

function disable(control, place, reason) {
  control.disabled = true;
  note(place, reason);
}

function note(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

// --- drawing ----------------------------------------------------------------------------------

const percent = (share) => `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;

function make(tag, name, text) {
  const element = document.createElement(tag);
  if (name) element.className = name;
  if (text !== undefined) element.textContent = text;
  return element;
}

function toned(element, label) {
  const number = model ? model.classes.indexOf(label) : 0;
  element.style.setProperty("--tone", `var(--tone-${Math.max(0, number) % 7})`);
  return element;
}

function placed(element, [x, y, width, height], seen, mirrored) {
  const left = mirrored ? seen.width - x - width : x;
  element.style.left = `${(100 * left) / seen.width}%`;
  element.style.top = `${(100 * y) / seen.height}%`;
  element.style.width = `${(100 * width) / seen.width}%`;
  element.style.height = `${(100 * height) / seen.height}%`;
  return element;
}

function draw(seen) {
  const mirrored = frame.classList.contains("mirrored");
  const marks = document.createDocumentFragment();
  for (const face of seen.faces) {
    if (!face.attention) continue;
    const map = placed(shade(face.attention.map), face.attention.box, seen, mirrored);
    map.style.rotate = `${mirrored ? -face.attention.tilt : face.attention.tilt}deg`;
    marks.append(map);
  }
  const cards = seen.faces.map((face, index) => {
    const box = mark(face, index, seen, mirrored);
    marks.append(box);
    const card = described(face, index, seen.faces.length);
    card.addEventListener("pointerenter", () => box.classList.add("on"));
    card.addEventListener("pointerleave", () => box.classList.remove("on"));
    return card;
  });
  $("marks").replaceChildren(marks);
  $("faces").replaceChildren(...cards);
}

// The box of a face, its label above and its probabilities as one bar below; inside the box where
// the picture ends.
function mark(face, index, seen, mirrored) {
  const [x, y, width, height] = face.box;
  const box = placed(toned(make("div", "box"), face.label), face.box, seen, mirrored);
  const middle = (x + width / 2) / seen.width;
  box.classList.toggle("high", y / seen.height < 0.09);
  box.classList.toggle("low", (y + height) / seen.height > 0.94);
  box.classList.toggle("right", (mirrored ? 1 - middle : middle) > 0.6);
  const chip = make("div", "chip");
  if (seen.faces.length > 1) chip.append(make("span", "", index + 1));
  chip.append(make("span", seen.faces.length > 1 ? "word" : "", headline(face)));
  const mix = make("div", "mix");
  for (const [label, share] of Object.entries(face.probabilities)) {
    const part = toned(make("span"), label);
    part.style.flexGrow = share;
    mix.append(part);
  }
  box.append(chip, mix);
  return box;
}

const headline = (face) => `${face.known ? face.label : "not sure"} ${percent(face.probabilities[face.label])}`;

function described(face, index, count) {
  const card = make("li", "face");
  const title = make("h3");
  if (count > 1) title.append(make("span", "number", index + 1), " ");
  title.append(make("span", "", face.known ? face.label : "not sure"), " ");
  title.append(make("span", "share", percent(face.probabilities[face.label])));
  card.append(title);
  if (!face.known) card.append(make("p", "doubt", `most likely ${face.label}, too unlikely to say so`));
  const bars = make("ul", "bars");
  for (const [label, share] of Object.entries(face.probabilities)) {
    const line = toned(make("li", label === face.label ? "most" : ""), label);
    const bar = make("span", "bar");
    bar.setAttribute("aria-hidden", "true");
    bar.append(make("span"));
    bar.firstChild.style.width = `${100 * share}%`;
    line.append(make("span", "", label), bar, make("span", "share", percent(share)));
    bars.append(line);
  }
  card.append(bars);
  return card;
}

// What the model passes over is darkened; the map is small and is enlarged smoothly.
function shade(map) {
  const canvas = make("canvas", "map");
  canvas.width = map[0].length;
  canvas.height = map.length;
  const pixels = new ImageData(canvas.width, canvas.height);
  map.flat().forEach((weight, i) => { pixels.data[4 * i + 3] = 200 * (1 - weight); });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}

function say(text, bad = false) {
  const status = $("status");
  status.classList.toggle("bad", bad);
  if (status.textContent !== text) status.textContent = text;
}

function summary(faces) {
  if (!faces.length) {
    const crop = camera ? "" : " If the picture is a single face already, switch on “The picture is one face”.";
    return `No face found.${crop}`;
  }
  if (faces.length === 1) return `1 face: ${headline(faces[0])}.`;
  const counts = new Map();
  for (const { known, label } of faces) {
    const said = known ? label : "not sure";
    counts.set(said, (counts.get(said) ?? 0) + 1);
  }
  return `${faces.length} faces: ${[...counts].map(([said, count]) => `${count} ${said}`).join(", ")}.`;
}

function failed(error) {
  if (error.status === 401) {
    $("access").hidden = false;
    $("token").focus();
  }
  say(error.message, true);
}

function clear() {
  $("marks").replaceChildren();
  $("faces").replaceChildren();
}

function show(element, width, height, mirrored) {
  $("empty").hidden = true;
  frame.hidden = false;
  photo.hidden = element !== photo;
  video.hidden = element !== video;
  frame.style.setProperty("--ratio", width / height);
  frame.classList.toggle("mirrored", mirrored);
}

function showNothing() {
  chosen = null;
  frame.hidden = true;
  $("empty").hidden = false;
}

// --- a picture --------------------------------------------------------------------------------

async function take(file) {
  stopCamera();
  chosen = file;
  clear();
  $("access").hidden = true;
  const number = ++asked;
  const address = URL.createObjectURL(file);
  photo.src = address;
  say("Looking …");
  stage.classList.add("busy");
  try {
    await photo.decode().catch(() => {
      if (number === asked) showNothing();
      throw new Refusal(`${file.name || "This"} is no picture that the browser can show.`, 0);
    });
    show(photo, photo.naturalWidth, photo.naturalHeight, false);
    const seen = await predict(file, file.name || "pasted");
    if (number !== asked) return;
    draw(seen);
    say(summary(seen.faces));
  } catch (error) {
    if (number === asked) failed(error);
  } finally {
    URL.revokeObjectURL(address);
    if (number === asked) stage.classList.remove("busy");
  }
}

// --- the camera -------------------------------------------------------------------------------

const REASONS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser's settings.",
  NotFoundError: "There is no camera.",
  NotReadableError: "The camera is in use by another program.",
};

async function startCamera() {
  let stream;
  $("camera").disabled = true; // a second click would open a second stream
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: FRAME_WIDTH } } });
  } catch (error) {
    return say(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`, true);
  } finally {
    $("camera").disabled = false;
  }
  asked += 1;
  stage.classList.remove("busy"); // of a picture whose answer is no longer waited for
  chosen = null;
  camera = stream;
  clear();
  $("access").hidden = true;
  $("camera").setAttribute("aria-pressed", "true");
  $("camera").textContent = "Stop the camera";
  video.srcObject = stream;
  await video.play();
  const track = stream.getVideoTracks()[0];
  track.addEventListener("ended", stopCamera);
  show(video, video.videoWidth, video.videoHeight, track.getSettings().facingMode !== "environment");
  say("Looking …");
  await follow(stream);
}

// One frame is under way at a time, so the rate is whatever the answers keep up with.
async function follow(stream) {
  const canvas = document.createElement("canvas");
  let last = { text: "", at: 0 }, spent = 0;
  while (camera === stream) {
    const began = performance.now();
    const scale = Math.min(1, FRAME_WIDTH / video.videoWidth);
    canvas.width = Math.round(scale * video.videoWidth);
    canvas.height = Math.round(scale * video.videoHeight);
    canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
    try {
      const seen = await predict(blob, "frame.jpg");
      if (camera !== stream) return;
      frame.style.setProperty("--ratio", seen.width / seen.height);
      draw(seen);
      const labels = seen.faces.map((face) => (face.known ? face.label : "not sure")).join();
      if (!last.at || (labels !== last.text && began - last.at > ANNOUNCE_EVERY)) {
        say(summary(seen.faces));
        last = { text: labels, at: began };
      }
    } catch (error) {
      if (camera !== stream) return;
      if (error.status !== 503) {
        stopCamera();
        return failed(error);
      }
      say("The server is busy; the next frame follows in a moment.");
      last.at = 0;
      await new Promise((done) => setTimeout(done, 1000 * error.wait));
      if (camera !== stream) return;
    }
    await new Promise((done) => setTimeout(done)); // let the browser breathe
    const took = performance.now() - began;
    spent = spent ? 0.8 * spent + 0.2 * took : took;
    $("rate").textContent = `${(1000 / spent).toFixed(1)} frames a second`;
  }
}

function stopCamera() {
  if (!camera) return;
  camera.getTracks().forEach((track) => track.stop());
  camera = null;
  video.srcObject = null;
  clear();
  showNothing();
  $("rate").textContent = "";
  $("camera").setAttribute("aria-pressed", "false");
  $("camera").textContent = "Use the camera";
  say("The camera is off.");
}

// --- controls ---------------------------------------------------------------------------------

$("choose").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", (event) => {
  const [file] = event.target.files;
  if (file) take(file);
  event.target.value = ""; // so that the same file can be chosen again
});
$("camera").addEventListener("click", () => (camera ? stopCamera() : startCamera()));
for (const id of ["attention", "whole"]) {
  $(id).addEventListener("change", () => chosen && take(chosen));
}
$("access").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value;
  $("access").hidden = true;
  begin().then((known) => known && (chosen ? take(chosen) : say("No picture yet.")));
});
document.addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file) take(file);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  stage.classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) stage.classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  stage.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) take(file);
});
window.addEventListener("pagehide", stopCamera);

if (!navigator.mediaDevices?.getUserMedia) {
  disable($("camera"), $("camera-note"), "Browsers give the camera only to pages on this machine (127.0.0.1) or over https.");
}

async function begin() {
  try {
    await introduce();
    return true;
  } catch (error) {
    failed(error);
    return false;
  }
}
begin();
