// Whatever can be scrolled sideways can be reached and scrolled by keyboard.
let n = 0;
for (const box of document.querySelectorAll(".table-wrapper, .highlight pre")) {
  if (box.scrollWidth > box.clientWidth) {
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", `${box.matches("pre") ? "Code" : "Table"}, wider than the screen (${++n})`);
  }
}
