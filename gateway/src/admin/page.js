// Fetches this page again every five seconds and puts its main part in place; the page works without.
"use strict";
const state = document.getElementById("refresh");
let lost = "";
const again = async () => {
  if (document.hidden) return;
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const id of ["head", "body"]) {
      const scrolled = [...document.querySelectorAll(`#${id} .wide`)].map((e) => e.scrollLeft);
      document.getElementById(id).replaceChildren(...page.getElementById(id).childNodes);
      document.querySelectorAll(`#${id} .wide`).forEach((e, i) => { e.scrollLeft = scrolled[i] ?? 0; });
    }
    state.textContent = "updates every 5 s";
    state.classList.remove("bad");
    lost = "";
  } catch (error) {
    lost ||= new Date().toLocaleTimeString();
    state.textContent = `no answer since ${lost}: this is what was last heard`;
    state.classList.add("bad");
  }
};
state.textContent = "updates every 5 s";
setInterval(again, 5000);
document.addEventListener("visibilitychange", again);
