// Keeps the changing part of an order's page up to date. The page is whole without it.
const state = document.getElementById("state");
if (state && state.dataset.live && window.EventSource) {
  const changes = new EventSource(state.dataset.live);
  changes.addEventListener("order", (event) => {
    state.innerHTML = event.data;
    state.dataset.version = event.lastEventId;
  });
  changes.addEventListener("end", () => {
    changes.close();
    state.dataset.ended = "true";
  });
}
