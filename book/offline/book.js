// What scrolls sideways on a small screen must also be reachable with the keyboard.
window.addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const box of document.querySelectorAll(".pst-scrollable-table-container, div.math, .cell_output .output"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  // docutils calls the references a list but not its children items of one.
  for (const list of document.querySelectorAll(".citation-list")) list.removeAttribute("role");
});
