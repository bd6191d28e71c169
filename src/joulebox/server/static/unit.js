// The switch between joules, watt hours and mean watts remembers its last position, for every receipt.

const recall = () => {
  let unit = "j";
  try { unit = localStorage.getItem("unit") ?? unit; } catch { /* private window */ }
  const radio = document.querySelector(`[name=unit][value="${CSS.escape(unit)}"]`);
  if (radio) radio.checked = true;
};

document.addEventListener("change", ({ target }) => {
  if (target.name !== "unit") return;
  try { localStorage.setItem("unit", target.value); } catch { /* private window */ }
});
document.addEventListener("slip", recall); // a receipt has come
recall();
