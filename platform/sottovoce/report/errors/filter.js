"use strict";
// Filters and sorts the utterances of this page. Without it the page is a plain list, worst first.
(() => {
  const form = document.getElementById("filters");
  const list = document.getElementById("utterances");
  const shown = document.getElementById("shown");
  const fold = (text) => text.normalize("NFC").toLocaleLowerCase().replace(/\s+/g, " ").trim();
  const number = (text) => (text === undefined || text === "" ? NaN : Number(text));

  const rows = Array.from(list.children, (element, rank) => ({
    element,
    rank,
    data: element.dataset,
    errors: Number(element.dataset.errors),
    length: Number(element.dataset.length),
    duration: Number(element.dataset.duration),
    snr: number(element.dataset.snr),
    kinds: element.dataset.kinds.split(" "),
    text: null,
  }));

  // The texts are read from the page at the first search, and once only.
  const textOf = (row) => {
    row.text ??= fold(Array.from(row.element.querySelectorAll("dd"), (text) => text.textContent).join(" \n "));
    return row.text;
  };

  const rate = (row) => row.errors / Math.max(1, row.length);
  const orders = {
    worst: (a, b) => a.rank - b.rank,
    errors: (a, b) => b.errors - a.errors,
    rate: (a, b) => rate(b) - rate(a),
    longest: (a, b) => b.duration - a.duration,
    shortest: (a, b) => a.duration - b.duration,
    noisiest: (a, b) => (Number.isNaN(a.snr) ? 1e9 : a.snr) - (Number.isNaN(b.snr) ? 1e9 : b.snr),
  };

  const isKept = (row) => {
    for (const name of ["language", "corpus", "speaker"]) {
      const choice = form.elements[name];
      if (choice && choice.value !== "" && choice.value !== row.data[name]) return false;
    }
    const kind = form.elements.kind.value;
    if (kind !== "" && !row.kinds.includes(kind)) return false;
    // A field without a number is NaN, which nothing is below or above.
    if (row.duration < form.elements.from.valueAsNumber || row.duration > form.elements.to.valueAsNumber) return false;
    const wanted = fold(form.elements.text.value);
    return wanted === "" || textOf(row).includes(wanted);
  };

  const filter = () => {
    const kept = rows.filter((row) => (row.element.hidden = !isKept(row), !row.element.hidden));
    const errors = kept.reduce((sum, row) => sum + row.errors, 0);
    const length = kept.reduce((sum, row) => sum + row.length, 0);
    const percent = length ? `, ${(100 * errors / length).toFixed(1)} % of ${length} ${form.dataset.unit}` : "";
    shown.textContent = `${kept.length} of ${rows.length} utterances shown: ${errors} ${errors === 1 ? "error" : "errors"}${percent}`;
  };

  const sort = () => {
    const order = orders[form.elements.order.value];
    list.append(...[...rows].sort((a, b) => order(a, b) || a.rank - b.rank).map((row) => row.element));
  };

  const update = () => { sort(); filter(); };
  form.addEventListener("input", (event) => { if (event.target.name === "order") sort(); else filter(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));

  // One sound at a time.
  list.addEventListener("play", (event) => {
    for (const sound of list.querySelectorAll("audio")) if (sound !== event.target) sound.pause();
  }, true);

  // Keys, while an utterance's heading has the focus: j and k go to the next and the one before, p plays and pauses.
  list.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || !event.target.matches("h3 a")) return;
    const row = event.target.closest("article");
    if (event.key === "p") {
      const sound = row.querySelector("audio");
      if (sound) { if (sound.paused) sound.play(); else sound.pause(); }
    } else if (event.key === "j" || event.key === "k") {
      const step = event.key === "j" ? "nextElementSibling" : "previousElementSibling";
      let next = row[step];
      while (next && next.hidden) next = next[step];
      if (next) next.querySelector("h3 a").focus();
    } else return;
    event.preventDefault();
  });

  form.hidden = false;
  update(); // a browser may keep what was chosen before a reload
})();
