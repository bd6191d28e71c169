// Small comforts of every page. What stands in an underscore call is put into the reader's language before it is sent.

// The switch between joules, watt hours and mean watts remembers its last position, for every receipt.
const recall = () => {
  let unit = "j";
  try { unit = localStorage.getItem("unit") ?? unit; } catch { /* private window */ }
  const radio = document.querySelector(`[name=unit][value="${CSS.escape(unit)}"]`);
  if (radio) radio.checked = true;
};

const expect = (select) => {
  const told = document.getElementById("expect");
  if (told) told.textContent = select.selectedOptions[0]?.dataset.expect ?? "";
};

document.addEventListener("change", ({ target }) => {
  if (target.name === "model") expect(target);
  if (target.name !== "unit") return;
  try { localStorage.setItem("unit", target.value); } catch { /* private window */ }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.target.form?.requestSubmit();
});
// A page that waits for prompts looks again when the first of them is over.
const [first] = document.querySelector("[data-await]")?.dataset.await.split(" ") ?? [];
if (first) {
  const source = new EventSource(`/api/v1/prompts/${encodeURIComponent(first)}/events`);
  for (const end of ["receipt", "cancelled", "error"]) {
    source.addEventListener(end, (event) => {
      if (event.data === undefined && source.readyState !== EventSource.CLOSED) return; // it connects again by itself
      source.close();
      setTimeout(() => location.reload(), event.data === undefined ? 2000 : 0);
    });
  }
}
document.addEventListener("slip", recall); // a receipt has come
recall();
document.querySelectorAll("select[name=model]").forEach(expect);
