// A place to drop a file, or choose one. It goes to this server alone, which keeps it in memory and answers with a
// token; 'upload' tells it as {item}.
const put = (place, text) => { const found = element.querySelector(place); if (found) found.textContent = text; };
const say = (text) => put(".problem", text);

async function send(file) {
  const most = +element.querySelector(".drop").dataset.most;
  say("");
  put(".state", "");
  if (file.size > most) {
    say(`the file has ${(file.size / 1e6).toFixed(1)} MB; at most ${(most / 1e6).toFixed(1)} MB are taken`);
    return;
  }
  element.querySelector(".drop").classList.add("busy");
  put(".state", `sending ${file.name} …`);
  try {
    const answer = await fetch("upload", {
      method: "POST",
      body: file,
      headers: { "Content-Type": "application/octet-stream", "X-Expost-Name": encodeURIComponent(file.name) },
    });
    const found = await answer.json();
    put(".state", answer.ok ? `${file.name} is read; one moment …` : "");
    if (answer.ok) trigger("upload", { item: found.item, file: file.name });
    else say(found.error);
  } catch (error) {
    put(".state", "");
    say("the file could not be sent; is the server still running?");
  } finally {
    element.querySelector(".drop")?.classList.remove("busy");
  }
}

element.addEventListener("change", (event) => {
  if (event.target.type !== "file" || !event.target.files.length) return;
  send(event.target.files[0]);
  event.target.value = "";
});
element.addEventListener("dragover", (event) => { event.preventDefault(); });
for (const [name, over] of [["dragenter", true], ["dragleave", false], ["drop", false]]) {
  element.addEventListener(name, (event) => {
    event.preventDefault();
    element.querySelector(".drop").classList.toggle("over", over);
  });
}
element.addEventListener("drop", (event) => { if (event.dataTransfer.files.length) send(event.dataTransfer.files[0]); });
// What was wrong with a file is forgotten at the next thing a person does, wherever on the page. (Not at pointerdown:
// what is pressed would move from under the pointer before it is let go.)
for (const name of ["click", "keydown", "dragenter"]) {
  document.addEventListener(name, () => { if (element.isConnected) say(""); }, true);
}
