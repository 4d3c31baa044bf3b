// Classifies what is typed, by a .tflite of tfopt, on the machine of who types it.
import {FilesetResolver, TextClassifier}
  from "./node_modules/@mediapipe/tasks-text/text_bundle.mjs";

const MODEL = "model.tflite", WASM = "node_modules/@mediapipe/tasks-text/wasm";
const SHOWN = 5;  // labels of the highest scores
const at = id => document.getElementById(id);

const tell = (message, wrong = false) => {
  at("status").textContent = message;
  at("status").className = wrong ? "wrong" : "";
};

const fetched = async path => {
  const answer = await fetch(path);
  if (!answer.ok)
    throw new Error(`${path} cannot be fetched: ${answer.status} ${answer.statusText}`);
  return new Uint8Array(await answer.arrayBuffer());
};

const open = async () => {
  const [contents, files] = await Promise.all(
    [fetched(MODEL), FilesetResolver.forTextTasks(WASM)]);
  const classifier = await TextClassifier.createFromOptions(files, {
    baseOptions: {modelAssetBuffer: contents}, maxResults: SHOWN});
  classifier.classify("warm up");  // the first answer takes a hundred times longer
  return classifier;
};

const row = ({categoryName, index, score}) => {
  const made = document.createElement("tr"), bar = document.createElement("meter");
  made.insertCell().textContent = categoryName || `class ${index}`;
  made.insertCell().textContent = score.toFixed(6);
  bar.value = score;
  made.insertCell().append(bar);
  return made;
};

const show = classifier => {
  const text = at("text").value;
  document.querySelector("table").hidden = !text.trim();
  if (!text.trim()) return tell("Type a text.");
  const begun = performance.now();
  const [{categories}] = classifier.classify(text).classifications;
  const taken = performance.now() - begun;
  at("scores").replaceChildren(...categories.map(row));
  tell(`${taken.toFixed(1)} ms`);
};

try {
  const begun = performance.now();
  const classifier = await open();
  at("text").disabled = false;
  at("text").addEventListener("input", () => {
    try {
      show(classifier);
    } catch (error) {
      tell(`This text cannot be classified: ${error.message}`, true);
    }
  });
  at("text").focus();
  tell(`Ready in ${((performance.now() - begun) / 1e3).toFixed(1)} s. Type a text.`);
} catch (error) {
  tell(`The model cannot be opened: ${error.message}`, true);
}
